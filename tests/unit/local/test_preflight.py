"""What the preflight finds and advises, on machines that are made up and on this one."""

import ast
import dataclasses
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from portico.local import layout, machine, preflight
from portico.local.machine import Machine
from portico.local.preflight import Finding

GB = 10**9
SOUND = Machine((3, 12), "linux", "x86_64", (2, 36), Path("/usr/lib/libpython3.12.so.1.0"), True, 16 * GB, 100 * GB)
READ_BY_AN_OLD_PYTHON = (
    "__init__",
    "__main__",
    "prepare",
    "preflight",
    "machine",
    "port_owner",
    "environments",
    "layout",
)


def only(lacking: Machine) -> Finding:
    """The one finding on a machine."""
    (finding,) = preflight.findings(lacking, disk_needed=5 * GB, memory_needed=2 * GB)
    return finding


def test_a_sound_machine_has_no_findings() -> None:
    """A machine that has everything is not bothered with advice."""
    assert preflight.findings(SOUND, disk_needed=5 * GB, memory_needed=2 * GB) == []


@pytest.mark.parametrize(
    ("lacking", "problem", "remedy"),
    [
        ({"python": (3, 10)}, r"This is Python 3\.10; Portico needs Python 3\.11, 3\.12 or 3\.13\.", "PYTHON=python3"),
        ({"python": (3, 14)}, r"This is Python 3\.14.*TensorFlow has no wheels", "PYTHON=python3"),
        ({"system": "darwin"}, r"Linux on x86_64; this is darwin on x86_64", "docker compose up"),
        ({"architecture": "aarch64"}, r"this is linux on aarch64", "docker compose up"),
        ({"glibc": None}, r"no glibc", "docker compose up"),
        ({"glibc": (2, 28)}, r"glibc 2\.28; at least 2\.31", "docker compose up"),
        ({"libpython": None}, r"no shared libpython3\.12\.so", "apt install libpython3.12"),
        ({"has_venv": False}, r"cannot make environments", "apt install python3.12-venv"),
        ({"disk": 3 * GB}, r"5\.0 GB of disk are needed here, 3\.0 GB are free", "Free some"),
        ({"memory": 900_000_000}, r"2\.0 GB of memory are needed, 900 MB are available", "memory"),
    ],
)
def test_each_lack_is_named_with_its_remedy(lacking: dict[str, object], problem: str, remedy: str) -> None:
    """Whatever is missing is said in one finding that also says what to do."""
    finding = only(dataclasses.replace(SOUND, **lacking))  # type: ignore[arg-type]
    assert re.search(problem, finding.problem)
    assert remedy in finding.remedy


def test_everything_is_reported_at_once() -> None:
    """Nobody has to fix one thing to hear of the next."""
    poor = dataclasses.replace(SOUND, libpython=None, has_venv=False, disk=0, memory=0)
    assert len(preflight.findings(poor, disk_needed=5 * GB, memory_needed=2 * GB)) == 4


def test_unknown_sizes_are_no_findings() -> None:
    """Where the system does not tell how much memory is available, nothing is claimed about it."""
    unknown = dataclasses.replace(SOUND, disk=None, memory=None)
    assert preflight.findings(unknown, disk_needed=5 * GB, memory_needed=2 * GB) == []


def test_this_machine_is_read() -> None:
    """The facts of the machine that these tests run on are found, since it is one that Portico runs on."""
    here = Machine.here(layout.ROOT)
    assert here.libpython is not None
    assert here.libpython.name.startswith(f"libpython{sys.version_info[0]}.{sys.version_info[1]}.so")
    assert here.glibc is not None
    assert here.glibc >= preflight.OLDEST_GLIBC
    assert here.memory is not None
    assert here.memory > 0


def test_a_taken_port_names_who_holds_it() -> None:
    """The process that has to be stopped is named, with its pid."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        finding = preflight.free_port(str(port))
    assert finding is not None
    assert f"Port {port} is taken by " in finding.problem
    assert f"pid {os.getpid()}" in finding.problem
    assert "make run PORT=9090" in finding.remedy


def test_a_free_port_is_fine() -> None:
    """A port that nobody listens on is no finding, even just after somebody did."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    assert preflight.free_port(str(port)) is None


@pytest.mark.parametrize("text", ["", "http", "0", "65536", "-1"])
def test_what_is_no_port_is_refused(text: str) -> None:
    """PORT has to be a number that a port can have."""
    finding = preflight.free_port(text)
    assert finding is not None
    assert f"PORT={text} is not a port" in finding.problem


@pytest.mark.parametrize("text", ["0", "-1", "two", "", "1000"])
def test_what_is_no_number_of_replicas_is_refused(text: str) -> None:
    """REPLICAS is looked at before anything is started."""
    finding = preflight.number_of_replicas(text)
    assert finding is not None
    assert f"REPLICAS={text}" in finding.problem
    assert preflight.number_of_replicas("2") is None


def test_models_have_to_be_a_folder(tmp_path: Path) -> None:
    """A repository that is missing, or a file, is told apart from one that is fine."""
    (tmp_path / "file").touch()
    missing, file = preflight.readable_models(tmp_path / "none"), preflight.readable_models(tmp_path / "file")
    assert missing is not None
    assert "does not exist" in missing.problem
    assert file is not None
    assert "not a folder" in file.problem
    assert preflight.readable_models(tmp_path) is None


@pytest.mark.parametrize("name", READ_BY_AN_OLD_PYTHON)
def test_an_old_python_can_read_the_preflight(name: str) -> None:
    """Python 3.7 parses what tells it that it is too old, so that nobody sees a SyntaxError instead."""
    source = (Path(preflight.__file__).parent / f"{name}.py").read_text()
    ast.parse(source, feature_version=(3, 7))


def test_nothing_is_installed_yet(tmp_path: Path) -> None:
    """Stage 1 imports nothing but the standard library: an isolated Python without site-packages runs it."""
    command = [sys.executable, "-S", "-E", "-m", "portico.local", "--help"]
    done = subprocess.run(command, cwd=layout.ROOT / "gateway", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "setup" in done.stdout


def test_findings_end_the_run_with_exit_code_1_and_no_traceback(tmp_path: Path) -> None:
    """A wrong PORT, MODELS and REPLICAS are told together, before anything is made."""
    command = [sys.executable, "-m", "portico.local", "run", "--port", "none", "--models", str(tmp_path / "none")]
    command += ["--replicas", "many"]
    done = subprocess.run(command, cwd=layout.ROOT / "gateway", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "PORT=none is not a port" in done.stdout
    assert "does not exist" in done.stdout
    assert "REPLICAS=many is not a number" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_container_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is what the container may use where that is less than what the machine has."""
    texts = {"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 8000000 kB\n", "/sys/fs/cgroup/memory.max": "1000000\n"}
    monkeypatch.setattr(Path, "read_text", lambda self: texts[str(self)])
    assert machine.available_memory() == 1_000_000
    texts["/sys/fs/cgroup/memory.max"] = "max\n"
    assert machine.available_memory() == 8_000_000 * 1024
