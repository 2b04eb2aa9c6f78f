"""How long a change of the files takes to reach the answers, for each kind of change, and with how many models around.

Run by `make bench`: starts a stack on loopback, changes models, and writes bench/swap.md and bench/swap.json. The time
is from the last byte written to the first answer of the new content; the controller's log splits it.
"""

import asyncio
import json
import os
import platform
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from portico.controller.repository import Repository
from portico.local import layout
from portico.local.stack import Stack

sys.path[:0] = [str(layout.ROOT / "tests" / "stack")]

from door import Door  # noqa: E402
from probe_models import SavedModels, archive  # noqa: E402

ROUNDS = 5
FEW, MANY = 4, 1000
SWAP_SECONDS = 120.0
PHASES = ("settle", "judge", "load", "flip")
HERE = Path(__file__).parent
_TOOK = re.compile(r"(settle|judge|load|flip) ([0-9.]+) s")


@dataclass(frozen=True)
class Swap:
    """Seconds of one change: as the client saw it, and the controller's phases. `rest` is what no phase holds."""

    kind: str
    total: float
    settle: float
    judge: float
    load: float
    flip: float

    @property
    def rest(self) -> float:
        """Noticing the change, and getting the new routes to the gateway and an answer to the client."""
        return max(0.0, self.total - self.settle - self.judge - self.load - self.flip)


class Bench:
    """One stack and a client of it."""

    def __init__(self, stack: Stack, saved_models: SavedModels) -> None:
        self.stack = stack
        self.door = Door(stack.addresses.clients)
        self.saved_models = saved_models
        self.content = 0

    def tf_answer(self, model: str) -> str:
        """What the model answers now, past the cache."""
        answer = self.door.post(f"/v1/models/{model}:predict", {"instances": [1.0]}, cache_control="no-cache")
        return str(int(answer.json["predictions"][0])) if answer.status == 200 else ""

    def torch_answer(self, model: str) -> str:
        """The same of a TorchServe model."""
        answer = self.door.post(f"/predictions/{model}", b"1", cache_control="no-cache")
        return answer.body.decode() if answer.status == 200 else ""

    def measure(self, kind: str, model: str, answer: Callable[[str], str], change: Callable[[int], str | None]) -> Swap:
        """Makes a change, and waits for its content. `change` gets the content's number, and may return another."""
        self.content += 1
        log = self.stack.log("controller")
        before = log.stat().st_size
        expected = change(self.content) or str(self.content)
        began = time.monotonic()
        while answer(model) != expected:
            if time.monotonic() - began > SWAP_SECONDS:
                raise SystemExit(f"{kind}: {model} does not answer {expected} within {SWAP_SECONDS:g} s")
            time.sleep(0.02)
        total = time.monotonic() - began
        return Swap(kind, total, **self._phases(log, before, model))

    def _phases(self, log: Path, offset: int, model: str) -> dict[str, float]:
        """From the line that the controller wrote about it; zeros for a change that loads nothing."""
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            with log.open() as opened:
                opened.seek(offset)
                lines = [line for line in opened if f"model {model} " in line and "(settle" in line]
            if lines:
                return {phase: float(seconds) for phase, seconds in _TOOK.findall(lines[-1])}
            time.sleep(0.05)
        return dict.fromkeys(PHASES, 0.0)


def put(folder: Path, files: dict[str, bytes]) -> None:
    """Writes files one after another."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def put_by_rename(folder: Path, files: dict[str, bytes]) -> None:
    """Writes files to a hidden folder and moves it into place."""
    staged = folder.with_name(f".{folder.name}.new")
    put(staged, files)
    staged.rename(folder)


def kinds(bench: Bench) -> Iterator[Swap]:
    """Every kind of change, once."""
    models, saved = bench.stack.models, bench.saved_models
    tf, torch, flat = models / "tf", models / "torch", models / "flat.mar"
    newest = max(int(path.name) for path in tf.iterdir() if path.name.isdecimal())
    last = bench.tf_answer("tf")

    def replace_flat(content: int) -> None:
        new = models / ".flat.mar.new"
        new.write_bytes(archive(content))
        new.rename(flat)

    def delete(_: int) -> str:
        shutil.rmtree(tf / str(newest + 1))
        return last

    def pin(_: int) -> str:
        (tf / "model.yaml").write_text(f"default_version: {newest}\n")
        return last

    yield bench.measure(
        "SavedModel: new version copied", "tf", bench.tf_answer, lambda n: put(tf / str(newest + 1), saved.files(n))
    )
    yield bench.measure("SavedModel: newest version deleted", "tf", bench.tf_answer, delete)
    yield bench.measure(
        "SavedModel: new version moved in",
        "tf",
        bench.tf_answer,
        lambda n: put_by_rename(tf / str(newest + 1), saved.files(n)),
    )
    overwritten = str(bench.content + 1)
    yield bench.measure(
        "SavedModel: overwritten in place",
        "tf",
        bench.tf_answer,
        lambda n: put(tf / str(newest + 1), saved.files(n)),
    )
    yield bench.measure("policy: default_version set", "tf", bench.tf_answer, pin)

    def unpin(_: int) -> str:
        (tf / "model.yaml").unlink()
        return overwritten

    yield bench.measure("policy: removed", "tf", bench.tf_answer, unpin)
    yield bench.measure(
        "archive: overwritten", "flat", bench.torch_answer, lambda n: put(models, {"flat.mar": archive(n)})
    )
    yield bench.measure("archive: replaced by rename", "flat", bench.torch_answer, replace_flat)
    version = max(int(path.name) for path in torch.iterdir() if path.name.isdecimal()) + 1
    yield bench.measure(
        "archive: new version folder",
        "torch",
        bench.torch_answer,
        lambda n: put(torch / str(version), {"any.mar": archive(n)}),
    )


def fill(models: Path, saved_models: SavedModels, count: int) -> None:
    """A repository of `count` tiny models, two of which are TorchServe's: each of those costs a process of its own."""
    models.mkdir(parents=True)
    for number in range(count - 3):
        put(models / f"other-{number:04}" / "1", saved_models.files(0))
    put(models / "tf" / "1", saved_models.files(0))
    put(models / "torch" / "1", {"any.mar": archive(0)})
    put(models, {"flat.mar": archive(0)})


@contextmanager
def running(scratch: Path, saved_models: SavedModels, count: int) -> Iterator[Bench]:
    """A stack that serves `count` models, all of them ready."""
    models = scratch / f"models-{count}"
    fill(models, saved_models, count)
    with Stack(models) as stack:
        ready = stack.wait_for_models(1200)
        missing = [model for model in ready if not model.ready]
        if missing or len(ready) != count:
            raise SystemExit(f"{len(missing)} of {count} models are not ready: {missing[:3]}")
        yield Bench(stack, saved_models)


def scan_cost(models: Path) -> float:
    """CPU seconds of one look at a repository in which nothing has changed; the median of many."""

    async def looks() -> float:
        repository = Repository(models, 0.0, lambda: None)
        for _ in range(20):
            await repository.look()
            await asyncio.sleep(0.05)
        costs = []
        for _ in range(31):
            began = time.process_time()
            await repository.look()
            costs.append(time.process_time() - began)
        repository.close()
        return statistics.median(costs)

    return asyncio.run(looks())


def table(swaps: list[Swap]) -> Iterator[str]:
    """Markdown rows: medians by kind."""
    yield "| change | total | settle | judge | load | flip | rest | all but settle and load |"
    yield "|---|---|---|---|---|---|---|---|"
    for kind in dict.fromkeys(swap.kind for swap in swaps):
        mine = [swap for swap in swaps if swap.kind == kind]
        cells = [statistics.median(getattr(swap, name) for swap in mine) for name in ("total", *PHASES, "rest")]
        others = statistics.median(swap.judge + swap.flip + swap.rest for swap in mine)
        yield f"| {kind} | " + " | ".join(f"{seconds:.2f}" for seconds in (*cells, others)) + " |"


def main() -> None:
    """Measures, prints, and writes both files."""
    with tempfile.TemporaryDirectory(prefix="portico-bench-") as folder:
        scratch = Path(folder)
        saved_models = SavedModels(layout.TF_SERVING_PYTHON, scratch / "probe")
        results: dict[int, list[Swap]] = {}
        costs: dict[int, float] = {}
        for count in (FEW, MANY):
            print(f"{count} models: starting", flush=True)
            with running(scratch, saved_models, count) as bench:
                results[count] = []
                for number in range(ROUNDS):
                    results[count] += kinds(bench)
                    print(f"{count} models: round {number + 1} of {ROUNDS}", flush=True)
            costs[count] = scan_cost(scratch / f"models-{count}")
    lines = [
        "# How long a change of the files takes to reach the answers",
        "",
        f"Medians of {ROUNDS} rounds, in seconds, by `make bench` on {os.cpu_count()} cores ({platform.machine()}), "
        "with everything on one machine and our stand-in for TF Serving. Loading is the model server's own time.",
    ]
    for count, swaps in results.items():
        lines += ["", f"## {count} models in the repository", "", *table(swaps), ""]
        lines += [f"A look at the repository with nothing changed costs {costs[count] * 1000:.1f} ms of CPU."]
    (HERE / "swap.md").write_text("\n".join(lines) + "\n")
    measured = {
        str(count): {"scan_cpu_seconds": costs[count], "swaps": [asdict(swap) for swap in swaps]}
        for count, swaps in results.items()
    }
    (HERE / "swap.json").write_text(json.dumps(measured, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
