"""How fast Portico is: `python bench/speed.py`, which is `make bench`, starts a stack on loopback and what it is
compared with, measures in interleaved rounds, and writes bench/results.json, results.md and pictures/.

Every round measures each side of a group once; what counts are the ratios within a round, of which medians are told.
"""

import argparse
import json
import re
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import machine
import peer_cases
import pictures
import probing
import report
from cases import Group, Side, all_groups
from json_parse import Timer
from loads import Generators, Result, WrongAnswers
from machine import Cores, Usage, forget_peaks
from stage import Stage, Target

HERE = Path(__file__).parent
MOSTLY = 0.98
"""Of the answers: those which the cache treated as expected. Misses may be fewer by as many as are in flight: they are
slow, and some of the side before may end among them.
"""
GIVING_BACK, SLACK = 3.0, 32 << 20
"""Seconds, and bytes: how long a process may take to end what was cut off and to give memory back, and what it may
keep.
"""
COOLING = 0.1
"""Seconds between two measurements, at least, for what the one before has left to do."""


@dataclass(frozen=True)
class Measured:
    """One side in one round: what the load generator saw, and what the processes in front took for it. CPU is seconds
    per answer, memory is bytes: after, at most, and how much more the first process had at most than when it
    was idle.
    """

    rate: float
    p50: float
    p99: float
    answers: int
    cpu: float
    memory: int
    peak: int
    grown: int
    cache: dict[str, int]


class Bench:
    """Measures groups on a stage."""

    def __init__(self, stage: Stage, generators: Generators, rounds: int, seconds: float) -> None:
        self.stage = stage
        self.generators = generators
        self.rounds = rounds
        self.seconds = seconds
        self.began = time.monotonic()
        self.idle: dict[str, int] = {}
        """Bytes of the first process in front of each target, before anything was asked."""

    def add(self, group: Group | None, found: report.Results) -> None:
        """Measures a group, if it is one, and tells of it. Raises SystemExit."""
        if group is None:
            return
        try:
            sides = self.group(group)
        except WrongAnswers as error:
            raise SystemExit(f"{group.key}: {error}") from None
        found.add(group.key, group.title, group.limit, group.note, sides)
        print(
            "\n".join([f"\n{group.title} ({time.monotonic() - self.began:.0f} s)", *found.rows(group.key)]), flush=True
        )

    def group(self, group: Group) -> dict[str, list[Measured]]:
        """{side: its rounds}. Raises WrongAnswers."""
        self.stage.lend(group.needs)
        self.idle = {side.target: self._memory(side) for side in group.sides if side.parser is None}
        asking = [side for side in group.sides if side.parser is None]
        sizes = {side.name: probing.answer_size(side, self.stage.targets[side.target]) for side in asking}
        for side in asking:
            self.generators.warm_up(side.load, self.stage.targets[side.target].port, sizes[side.name])
        found: dict[str, list[Measured]] = {side.name: [] for side in group.sides}
        for _ in range(self.rounds):
            for side in group.sides:
                found[side.name].append(self.parsing(side) if side.parser else self.side(side, sizes[side.name]))
        return found

    def parsing(self, side: Side) -> Measured:
        """Once, how long it takes to only read the body."""
        time.sleep(COOLING)
        name, python = side.parser or ("", "")
        with machine.on_core(self.stage.cores.front):
            timer = Timer(name, python, "parsed")
        took = timer.seconds(side.load.body.data)
        timer.stop()
        return Measured(1 / took, 1000 * took, 1000 * took, 1, took, 0, 0, 0, {})

    def side(self, side: Side, size: int) -> Measured:
        """Once."""
        target = self.stage.targets[side.target]
        if side.load.drained:
            self._wait_for_memory(side)
        tally, before = self._settled(target), Usage.of(target.front)
        forget_peaks(target.front)
        try:
            result = self.generators.run(side.load, target.port, self.seconds, size)
        except WrongAnswers as error:
            raise WrongAnswers(f"{side.name}: {error}") from None
        after, told = Usage.of(target.front), target.tally() - tally
        self._check(side, result, told)
        return Measured(
            rate=result.rate,
            p50=result.p50,
            p99=result.p99,
            answers=result.answers,
            cpu=(after.cpu - before.cpu) / result.answers,
            memory=after.memory,
            peak=after.peak,
            grown=Usage.of(target.front[:1]).peak - self.idle[side.target],
            cache=dict(told),
        )

    def _settled(self, target: Target) -> Counter[str]:
        """Its tally, once nothing is added to it any more: what was cut off before must not be told as this side's."""
        deadline = time.monotonic() + GIVING_BACK
        tally, last = target.tally(), None
        while tally != last and time.monotonic() < deadline:
            time.sleep(COOLING)
            tally, last = target.tally(), tally
        return tally

    def _memory(self, side: Side) -> int:
        """Of the first process in front, now."""
        return Usage.of(self.stage.targets[side.target].front[:1]).memory

    def _wait_for_memory(self, side: Side) -> None:
        """Until most of what was taken before is given back, or will not be: its peak must not be told as another's."""
        deadline = time.monotonic() + GIVING_BACK
        while self._memory(side) > self.idle[side.target] + SLACK and time.monotonic() < deadline:
            time.sleep(0.1)

    def _check(self, side: Side, result: Result, told: dict[str, int]) -> None:
        if not side.expected:
            return
        right, total = sum(told.get(name, 0) for name in side.expected), sum(told.values())
        few = "miss" in side.expected and total - right <= side.load.in_flight
        if total < result.answers or not right or (right < MOSTLY * total and not few):
            raise WrongAnswers(f"{side.name}: {result.answers} answers should be {side.expected}, were {dict(told)}")


def chosen(group: Group, only: str, sides: str) -> Group | None:
    """None if its key begins with none of the words, else with the sides that match beside its limit."""
    words = [word for word in only.split(",") if word]
    if words and not any(group.key.startswith(word) for word in words):
        return None
    pattern = f"^{group.limit}$|{sides}"
    return replace(group, sides=tuple(side for side in group.sides if re.search(pattern, side.name)))


def arguments() -> argparse.Namespace:
    """What is to be measured."""
    parser = argparse.ArgumentParser(description="Measure Portico beside Envoy, the model servers and its peers.")
    parser.add_argument("--only", default="", metavar="CASE,…", help="groups whose keys begin so; nothing is written")
    parser.add_argument("--sides", default="", metavar="REGEX", help="with --only: which cases beside the limits")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement; wrk takes whole ones")
    parser.add_argument("--peers", default="none", metavar="all|none|NAME,…", help="installed when they are missing")
    parser.add_argument("--write", action="store_true", help="write the results with --only, too")
    return parser.parse_args()


def main() -> None:
    """Measures, prints, and writes."""
    asked, cores, began = arguments(), Cores.of_this_machine(), time.monotonic()
    generators = Generators(cores.load)
    found = report.Results(
        machine.describe(), machine.commit(), generators.describe(), asked.rounds, asked.seconds, machine.count()
    )
    with ExitStack() as opened:
        scratch = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="portico-bench-")))
        stage = Stage(cores, scratch, opened)
        stage.start_main()
        bench = Bench(stage, generators, asked.rounds, asked.seconds)
        for group in all_groups(stage.servables):
            bench.add(chosen(group, asked.only, asked.sides), found)
        for peer in peer_cases.chosen(asked.peers):
            with peer_cases.running(peer, stage) as groups:
                for group in groups:
                    bench.add(chosen(group, asked.only, ""), found)
    text = report.markdown(found)
    if not asked.only or asked.write:
        (HERE / "results.json").write_text(json.dumps(asdict(found), indent=1) + "\n")
        (HERE / "results.md").write_text(text)
        pictures.draw(found, HERE / "pictures")
    print("\n".join(["", *report.goals(found, bool(asked.only)), "", f"{time.monotonic() - began:.0f} s"]))


if __name__ == "__main__":
    main()
