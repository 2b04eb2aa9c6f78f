"""When an environment counts as made, and that making one repairs what an earlier attempt left."""

import io
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from portico.local import environments, installing, layout
from portico.local.board import Board
from portico.local.environments import Environment
from portico.local.installing import InstallationFailed

EMPTY = "# no packages\n"
IMPOSSIBLE = "portico-has-no-such-package==1.0 --hash=sha256:" + "0" * 64 + "\n"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a lock file that asks for nothing, so that pip needs no network."""
    (tmp_path / ".venv").mkdir()
    (tmp_path / "empty.lock").write_text(EMPTY)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "ours.py").write_text("ANSWER = 42\n")
    monkeypatch.setattr(layout, "VENVS", tmp_path / ".venv")
    monkeypatch.setattr(layout, "SETUP_LOGS", tmp_path / ".venv" / "logs")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return tmp_path


def small(checkout: Path) -> Environment:
    """An environment without packages, which finds the folder `own`."""
    return Environment("small", "nothing", ("empty.lock",), 0, 0, imports=("own",), root=checkout)


def test_a_new_checkout_has_no_environment(checkout: Path) -> None:
    """What was never made is not current."""
    assert not small(checkout).is_current()


def test_what_is_half_made_is_made_anew(checkout: Path) -> None:
    """After `install` nothing is left of an interrupted attempt; the environment is current and finds our packages."""
    environment = small(checkout)
    leftover = environment.folder / "lib" / "half-a-package"
    leftover.mkdir(parents=True)
    assert not environment.is_current()
    installing.install([environment], Board(io.StringIO()))
    assert environment.is_current()
    assert not leftover.exists()
    ask = [str(environment.python), "-c", "import ours; print(ours.ANSWER)"]
    assert subprocess.run(ask, capture_output=True, text=True, timeout=60, check=True).stdout == "42\n"


def test_another_lock_file_makes_it_stale(checkout: Path) -> None:
    """A changed lock file, another Python or another place ask for the environment to be made again."""
    environment = small(checkout)
    environment.python.parent.mkdir(parents=True)
    environment.python.touch()
    environment.mark_current()
    assert environment.is_current()
    (checkout / "empty.lock").write_text(EMPTY + "# changed\n")
    assert not environment.is_current()
    (checkout / "empty.lock").write_text(EMPTY)
    assert environment.is_current()
    assert not replace(environment, imports=()).is_current()
    environment.python.unlink()
    assert not environment.is_current()


def test_a_failure_shows_pip_s_last_lines_and_the_log(checkout: Path) -> None:
    """Whoever has no network reads what pip said and where the rest lies; the environment does not count as made."""
    (checkout / "empty.lock").write_text(IMPOSSIBLE)
    environment = small(checkout)
    with pytest.raises(InstallationFailed, match=r"portico-has-no-such-package(.|\n)*small\.log"):
        installing.install([environment], Board(io.StringIO()))
    assert not environment.is_current()
    assert "portico-has-no-such-package" in (checkout / ".venv" / "logs" / "small.log").read_text()


def test_pip_s_downloads_are_counted(checkout: Path) -> None:
    """The sizes that pip prints add up, in whatever unit, for a file name as for an address."""
    maker = installing.Maker(small(checkout), Board(io.StringIO()))
    for line in (
        "Collecting grpcio==1.85.1 (from -r gateway/requirements.lock (line 12))\n",
        "  Downloading grpcio-1.85.1-cp311-cp311-manylinux_2_17_x86_64.whl (7.4 MB)\n",
        "  Downloading https://example.invalid/x/annotated_doc-0.0.7-py3-none-any.whl (500 kB)\n",
        "  Using cached numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.whl (16.6 MB)\n",
    ):
        maker.read(line)
    assert maker.downloaded == pytest.approx(7_900_000)


@pytest.mark.parametrize(
    ("purpose", "names"),
    [
        ("protos", {"programs"}),
        ("check", {"programs", "dev"}),
        ("run", {"programs", "gateway", "tf-serving", "torchserve"}),
        ("test", {"programs", "gateway", "tf-serving", "torchserve", "dev", "clients"}),
    ],
)
def test_each_command_makes_what_it_needs(purpose: str, names: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`make check` does not download TensorFlow, and `make run` no linters."""
    monkeypatch.setenv("PATH", "")
    assert {environment.name for environment in environments.needed(purpose)} == names


def test_a_real_tf_serving_replaces_the_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With tensorflow_model_server on PATH, `make run` downloads no TensorFlow; the tests still do."""
    program = tmp_path / "tensorflow_model_server"
    program.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environments.TF_SERVING not in environments.needed("run")
    assert environments.TF_SERVING in environments.needed("test")
    assert environments.TF_SERVING in environments.needed("run", replicas=2)  # which the real one cannot be here


def test_the_lock_files_name_no_registry() -> None:
    """Where packages come from is for the user's pip to say."""
    for environment in environments.needed("test"):
        for lock in environment.locks:
            assert "://" not in (layout.ROOT / lock).read_text()


@pytest.mark.parametrize(
    ("told", "extra"), [("2.14.0, 2.13.0+cpu, 2.13.0", 0), ("2.14.0, 2.13.0", environments.CUDA_DOWNLOAD)]
)
def test_cuda_is_counted_where_pip_would_take_it(told: str, extra: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size told beforehand has CUDA in it, unless pip's settings lead to the CPU build of the locked version."""
    answer = subprocess.CompletedProcess([], 0, f"Available versions: {told}".encode())
    monkeypatch.setattr(subprocess, "run", lambda *args, **more: answer)
    download, _ = environments.sizes([environments.TORCHSERVE])
    assert download == environments.TORCHSERVE.download + extra
