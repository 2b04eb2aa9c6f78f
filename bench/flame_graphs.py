"""Where the time goes: `python bench/flame_graphs.py`, which is `make profile`, puts each case's load on the gateway,
writes a flame graph of its process to bench/profiles/, and to bench/profile.md what each thread takes for an answer and
which part of the code has the event loop.

The Python that is sampled runs inside Envoy's process. Shown is who holds the interpreter; what is missing to all of
the time is Envoy's and the module's. With `--native` their frames are shown, too, but the sampling slows the process.
"""

import argparse
import os
import re
import shutil
import subprocess
import tempfile
import venv
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import machine
import probing
from cases import Group, Side, all_groups
from loads import Generators, Result, WrongAnswers
from machine import Cores
from shares import PARTS, THREADS, Clock, by_part
from stage import Stage

from portico.local import layout

PY_SPY = "py-spy==0.4.3"
FOLDER, TABLES = Path(__file__).parent / "profiles", Path(__file__).parent / "profile.md"
USUAL = (
    "hits-rest-32,hits-grpc-32,hits-grpc-1,front-grpc-32,front-grpc-1,tf-rest-32,torch-rest-32,tensors-1mb,tensors-16mb"
)


def py_spy() -> str:
    """The program: this machine's, or one installed on demand."""
    if found := shutil.which("py-spy"):
        return found
    folder = layout.VENVS / "bench" / "py-spy"
    program = folder / "bin" / "py-spy"
    if not program.exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", PY_SPY], check=True)
    return str(program)


@dataclass(frozen=True)
class Found:
    """What one side takes: CPU of an answer by role, in microseconds, and the parts' shares of the event loop."""

    group: Group
    side: Side
    rate: float
    threads: dict[str, float]
    parts: dict[str, float]


def sampled(command: list[str], pid: int, seconds: float, output: Path, load: Callable[[], Result]) -> None:
    """Runs py-spy on a process while it is under load."""
    options = ["--pid", str(pid), "--duration", f"{seconds:g}", "--output", str(output)]
    sampling = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        load()
        said, _ = sampling.communicate(timeout=60)
    finally:
        sampling.kill()
    if sampling.returncode:
        raise SystemExit(f"py-spy failed (it may have to be root):\n{said}")


def look(py_spy: list[str], stage: Stage, generators: Generators, group: Group, side: Side, seconds: float) -> Found:
    """Draws the graph of one side, and measures who takes its time, which is done while nobody samples."""
    target = stage.targets[side.target]
    size = probing.answer_size(side, target)
    generators.warm_up(side.load, target.port, size)
    folded = ""
    if side.expected:
        name = re.sub(r"\W+", "-", f"{group.key} {side.name}").strip("-").lower()
        load = partial(generators.run, side.load, target.port, seconds + 1, size)
        machine.schedule(target.front[0], os.SCHED_OTHER)  # else it is stopped mostly where it lets others go first
        sampled([*py_spy, "--format", "flamegraph"], target.front[0], seconds, FOLDER / f"{name}.svg", load)
        raw = stage.scratch / f"{name}.folded"
        sampled([*py_spy, "--format", "raw"], target.front[0], seconds, raw, load)
        folded = raw.read_text()
        machine.schedule(target.front[0], os.SCHED_BATCH)
    before = Clock.of(target.front)
    result = generators.run(side.load, target.port, seconds, size)
    took = Clock.of(target.front).since(before)
    threads = {role: 1e6 * seconds / result.answers for role, seconds in took.items()}
    print(f"{group.key}, {side.name}: {result.rate:,.0f}/s, {sum(threads.values()):.0f} µs of CPU each", flush=True)
    return Found(group, side, result.rate, threads, by_part(folded) if folded else {})


def written(found: list[Found]) -> str:
    """The tables, as Markdown."""
    lines = [
        "# Where the time goes",
        "",
        f"By `make profile`, on {machine.describe()}; {machine.commit()}.",
        "",
        METHOD,
    ]
    for title, columns, cells in (
        ("CPU of an answer by thread, in microseconds", THREADS, _microseconds),
        ("The event loop's time by part of the code", PARTS, _percent),
    ):
        lines += ["", f"## {title}", "", f"| case | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        for each in found:
            if row := cells(each):
                lines.append(f"| {each.group.title}: {each.side.name} | {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def _microseconds(found: Found) -> list[str]:
    return [f"{found.threads[role]:.0f}" if found.threads.get(role, 0) >= 1 else "" for role in THREADS]


def _percent(found: Found) -> list[str]:
    return [f"{found.parts[part]:.0%}" for part in PARTS] if found.parts else []


METHOD = """\
Threads: Envoy's worker; the event loop, which runs all Python; pyvoy's hand-over, which takes what Envoy has to the
event loop; those of gRPC's client; the Envoy in front of the model servers, the door. Measured while nobody samples.

Parts: whose code it is, or for whom a library works, while the event loop holds the interpreter, by py-spy's samples;
that favours moments in which a system call is made."""


def main() -> None:
    """All cases that are asked for."""
    parser = argparse.ArgumentParser(description="Flame graphs of the gateway.")
    parser.add_argument("--only", default=USUAL, metavar="CASE,…", help="groups whose keys begin so")
    parser.add_argument("--sides", default="", metavar="REGEX")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--native", action="store_true", help="with the frames of Envoy and of compiled modules")
    asked, cores = parser.parse_args(), Cores.of_this_machine()
    command = [py_spy(), "record"]
    command += ["--native", "--rate", "50"] if asked.native else ["--gil", "--rate", "400"]
    FOLDER.mkdir(exist_ok=True)
    found: list[Found] = []
    with ExitStack() as opened:
        scratch = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="portico-bench-")))
        stage, generators = Stage(cores, scratch, opened), Generators(cores.load)
        stage.start_main()
        for group in all_groups(stage.servables):
            sides = [side for side in group.sides if re.search(asked.sides, side.name)]
            if sides and any(group.key.startswith(word) for word in asked.only.split(",")):
                stage.lend(group.needs)
                for side in sides:
                    try:
                        found.append(look(command, stage, generators, group, side, asked.seconds))
                    except WrongAnswers as error:
                        raise SystemExit(f"{group.key}: {error}") from None
    if (asked.only, asked.sides, asked.native) == (USUAL, "", False):
        TABLES.write_text(written(found))
        print(f"{TABLES.relative_to(layout.ROOT)} and {FOLDER.relative_to(layout.ROOT)}/*.svg are written")


if __name__ == "__main__":
    main()
