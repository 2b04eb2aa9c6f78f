"""What was measured, as tables: medians, and the project's goals computed from them; nothing by hand."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from targets import GOALS

Round = Mapping[str, Any]


@dataclass
class Results:
    """All groups by their keys: title, limit, note, and each side's rounds, as bench/results.json has them."""

    machine: str
    commit: str
    generators: str
    rounds: int
    seconds: float
    cores: int
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, key: str, title: str, limit: str, note: str, sides: Mapping[str, Sequence[Any]]) -> None:
        """One group's rounds, dataclasses of numbers."""
        told = {name: [asdict(each) for each in rounds] for name, rounds in sides.items()}
        self.groups[key] = {"title": title, "limit": limit, "note": note, "sides": told}

    def side(self, group: str, name: str) -> list[Round] | None:
        """Its rounds, None when it was not measured."""
        found: list[Round] | None = self.groups.get(group, {}).get("sides", {}).get(name)
        return found

    def median(self, group: str, name: str, value: Callable[[Round], float]) -> float | None:
        """Of all rounds."""
        rounds = self.side(group, name)
        return statistics.median(map(value, rounds)) if rounds else None

    def beside(self, group: str, name: str, other: str, value: Callable[[Round, Round], float] | str) -> float | None:
        """The median of a value of two sides in the same round; of a name of both, their ratio."""
        mine, others = self.side(group, name), self.side(group, other)
        if not mine or not others:
            return None
        if isinstance(value, str):
            part = value
            return statistics.median(a[part] / b[part] if b[part] else 0.0 for a, b in zip(mine, others, strict=True))
        return statistics.median(value(a, b) for a, b in zip(mine, others, strict=True))

    def rows(self, key: str) -> Iterator[str]:
        """Markdown: the table of a group."""
        group = self.groups[key]
        limit = group["limit"]
        yield f"| case | × {limit} | p50 ÷ its | answers/s | p50 ms | p99 ms | CPU µs per answer | memory MB |"
        yield "|---|---|---|---|---|---|---|---|"
        for name in group["sides"]:
            cells = [f"{self.beside(key, name, limit, 'rate'):.2f}", f"{self.beside(key, name, limit, 'p50'):.2f}"]
            medians = {part: self.median(key, name, lambda each, part=part: each[part]) or 0.0 for part in PARTS}  # type: ignore[misc]
            cells += [f"{medians['rate']:,.0f}", f"{medians['p50']:.2f}", f"{medians['p99']:.2f}"]
            cells += [f"{1e6 * medians['cpu']:,.0f}", f"{medians['memory'] / 1e6:,.0f}"]
            yield f"| {name} | " + " | ".join(cells) + " |"


PARTS = ("rate", "p50", "p99", "cpu", "memory")


def goals(results: Results, only_measured: bool = False) -> Iterator[str]:
    """Markdown: each goal, and whether it is met."""
    yield "| case | goal | measured | met |"
    yield "|---|---|---|---|"
    for goal in GOALS:
        measured = goal.measured(results)
        if measured is None and only_measured:
            continue
        known = measured is not None and results.cores >= goal.cores
        met = "—" if measured is None or not known else "yes" if goal.is_met(measured) else "**no**"
        yield f"| {goal.case} | {goal.text} | {'not measured' if measured is None else goal.shown(measured)} | {met} |"


def markdown(results: Results) -> str:
    """bench/results.md."""
    lines = [
        "# How fast Portico is",
        "",
        f"By `make bench`, on {results.machine}; state of the code: {results.commit}. Load: {results.generators}.",
        "",
        *METHOD.format(rounds=results.rounds, seconds=results.seconds).splitlines(),
        "",
        "## The goals",
        "",
        *goals(results),
        "",
        "![The same request again and again, beside others](pictures/hits.svg)",
        "",
        "![How many answers, as a ratio](pictures/throughput.svg)",
        "",
        "![How long one request takes](pictures/latency.svg)",
    ]
    for key, group in results.groups.items():
        lines += ["", f"## {group['title']}", "", *results.rows(key)]
        if group["note"]:
            lines += ["", group["note"]]
    return "\n".join(lines) + "\n"


METHOD = """\
Every figure that counts is a ratio within one round, in which each case of a table is measured once for {seconds:g} s;
told are medians of {rounds} rounds. The absolute numbers are this machine's, and not claimed.

What is measured runs on one core: the gateway, which clients call here at its own port, and for what a model server has
to answer also the Envoy behind it, the door at ml_model_server:8500; or Envoy, or a peer. The model servers, Redis and
the load generator run on others, on one if there are only two. CPU and memory are those of the processes on the first.
Nothing else uses that one, and all that is measured knows it, Envoy and the peers as well: their threads are scheduled
as a gateway's are by PORTICO_OWN_CORES. What that brings has tables of its own; and what runs on two cores, with the
load generator, is scheduled as by default.

The request is y = 2x on 16 FP32 numbers where nothing else is said. TF Serving is our stand-in, TorchServe is real.
Envoy that answers by itself does so after it has read the request; over HTTP/2 its answer has no trailers, so that no
gRPC client would take it: it is a limit and no peer. All Envoys have one worker and the listener of the gateway."""
