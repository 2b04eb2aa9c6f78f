"""Where the gateway's time goes: `python bench/flame_graphs.py`, which is `make profile`, puts each case's load on the
gateway and writes a flame graph of its process to bench/profiles/.

The Python that is sampled runs inside Envoy's process. Shown is who holds the interpreter; what is missing to all of
the time is Envoy's and the module's. With `--native` their frames are shown, too, but the sampling slows the process.
"""

import argparse
import re
import shutil
import subprocess
import tempfile
import venv
from contextlib import ExitStack
from pathlib import Path

import probing
from cases import Group, Side, all_groups
from loads import Generators, WrongAnswers
from machine import Cores
from stage import Stage

from portico.local import layout

PY_SPY = "py-spy==0.4.3"
FOLDER = Path(__file__).parent / "profiles"
USUAL = "hits-rest-32,hits-grpc-32,front-grpc-32,tf-rest-32,torch-rest-32,tensors-1mb"


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


def record(command: list[str], stage: Stage, generators: Generators, group: Group, side: Side, seconds: float) -> None:
    """Writes the graph of one side."""
    target = stage.targets[side.target]
    size = probing.answer_size(side, target)
    generators.warm_up(side.load, target.port, size)
    name = re.sub(r"\W+", "-", f"{group.key} {side.name}").strip("-").lower()
    picture = FOLDER / f"{name}.svg"
    options = ["--pid", str(target.front[0]), "--duration", f"{seconds:g}", "--output", str(picture)]
    sampling = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        result = generators.run(side.load, target.port, seconds + 1, size)
        said, _ = sampling.communicate(timeout=60)
    finally:
        sampling.kill()
    if sampling.returncode:
        raise SystemExit(f"py-spy failed (it may have to be root):\n{said}")
    print(f"{picture.relative_to(layout.ROOT)}: {result.rate:,.0f}/s while it was sampled", flush=True)


def main() -> None:
    """All cases that are asked for."""
    parser = argparse.ArgumentParser(description="Flame graphs of the gateway.")
    parser.add_argument("--only", default=USUAL, metavar="CASE,…", help="groups whose keys begin so")
    parser.add_argument("--sides", default="", metavar="REGEX")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--native", action="store_true", help="with the frames of Envoy and of compiled modules")
    asked, cores = parser.parse_args(), Cores.of_this_machine()
    command = [py_spy(), "record", "--format", "flamegraph"]
    command += ["--native", "--rate", "50"] if asked.native else ["--gil", "--rate", "400"]
    FOLDER.mkdir(exist_ok=True)
    with ExitStack() as opened:
        scratch = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="portico-bench-")))
        stage, generators = Stage(cores, scratch, opened), Generators(cores.load)
        stage.start_main()
        for group in all_groups(stage.servables):
            sides = [side for side in group.sides if side.expected and re.search(asked.sides, side.name)]
            if sides and any(group.key.startswith(word) for word in asked.only.split(",")):
                stage.lend(group.needs)
                for side in sides:
                    try:
                        record(command, stage, generators, group, side, asked.seconds)
                    except WrongAnswers as error:
                        raise SystemExit(f"{group.key}: {error}") from None


if __name__ == "__main__":
    main()
