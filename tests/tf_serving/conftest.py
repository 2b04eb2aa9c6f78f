"""The fixtures of the stand-in's tests: its models, one server for all that only asks, and servers for the rest."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# The helper module beside this file is found however pytest is told to import tests.
sys.path.append(str(Path(__file__).parent))

from standin_process import PYTHON, StandIn, Start, environment, put_version

LABEL = 'version_labels { key: "stable" value: 5 }'
ASKED = ("half", "product", "text", "echo", "tf1")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with one base path per model, made by make_models.py; read it, never write to it."""
    root = tmp_path_factory.mktemp("models")
    made = subprocess.run(
        [PYTHON, str(Path(__file__).with_name("make_models.py")), str(root)],
        capture_output=True,
        text=True,
        timeout=180,
        env=environment(),
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return root


@pytest.fixture(scope="session")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    """A server of every model, newest version each, with label `stable` on half 5; nobody changes what it serves."""
    folder = tmp_path_factory.mktemp("server")
    config = "".join(
        f'config {{ name: "{name}" base_path: "{models / name}" model_platform: "tensorflow" '
        f"{LABEL if name == 'half' else ''} }}\n"
        for name in ASKED
    )
    (folder / "models.config").write_text(f"model_config_list {{\n{config}}}\n")
    flags = (f"--model_config_file={folder / 'models.config'}", "--allow_version_labels_for_unavailable_models")
    running = StandIn(folder / "server.log", *flags)
    try:
        yield running.wait_ready()
    finally:
        running.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts servers of a test's own, which end with it."""
    running: list[StandIn] = []

    def start_one(*flags: str) -> StandIn:
        running.append(StandIn(tmp_path / f"server-{len(running)}.log", *flags))
        return running[-1]

    yield start_one
    for server in running:
        server.stop()


@pytest.fixture
def half(models: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a base path of half's versions that a test may change: half(1, 2)."""

    def copy(*versions: int, name: str = "base") -> Path:
        (tmp_path / name).mkdir(exist_ok=True)
        for version in versions:
            put_version(models, tmp_path / name, version)
        return tmp_path / name

    return copy


@pytest.fixture(scope="session")
def reloadable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    """A server that started with an empty config and does not retry loads; each test sends it a whole new config."""
    folder = tmp_path_factory.mktemp("reloadable")
    (folder / "models.config").write_text("")
    running = StandIn(
        folder / "server.log", f"--model_config_file={folder / 'models.config'}", "--max_num_load_retries=0"
    )
    try:
        running.wait_ready().reload()
        yield running
    finally:
        running.stop()
