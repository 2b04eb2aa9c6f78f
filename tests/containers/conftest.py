"""The engine, the images and one stack for all tests of this folder; with IMAGES=official the images are real ones."""

import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Importlib's mode of pytest does not find what lies beside; the models of the swap tests serve here, too.
sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "stack")]

from composed import Composed
from engine import Engine
from engine import engine as reachable_engine
from images import build_images, remove_names
from probe_models import SavedModels

from portico.local import layout

MEASURED = pytest.StashKey[list[str]]()
RUNNING = pytest.StashKey[Composed]()


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A Docker engine with Compose 2: the one that answers, else a private one for this session."""
    with reachable_engine() as found:
        yield found


@pytest.fixture(scope="session")
def images(engine: Engine, pytestconfig: pytest.Config) -> Iterator[None]:
    """All images of docker-compose.yml are there; building them takes minutes at first, so it is shown. In an engine of
    somebody's own no stand-in keeps an official name.
    """
    official = os.environ.get("IMAGES") == "official"
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def say(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n{line}", end="", flush=True)

    build_images(engine, official, say)
    yield
    if not (official or engine.private):
        remove_names(engine)


@pytest.fixture(scope="session")
def measured(pytestconfig: pytest.Config) -> list[str]:
    """Lines of the table that is shown at the end, as it is in the README."""
    return pytestconfig.stash.setdefault(MEASURED, [])


@pytest.fixture(scope="session")
def stack(
    engine: Engine,
    images: None,
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
    measured: list[str],
) -> Iterator[Composed]:
    """Everything running, every demo model ready, Redis with a password."""
    scratch = tmp_path_factory.mktemp("containers")
    for folder in (scratch.parent, scratch.parent.parent):  # so that the containers' users reach what is mounted
        folder.chmod(0o755)
    composed = Composed(engine, scratch, secrets.token_hex(16))
    try:
        seconds = composed.up()
        pytestconfig.stash[RUNNING] = composed
        measured.append(f"| `docker compose up --wait` | {seconds:.0f} s |")
        yield composed
        del pytestconfig.stash[RUNNING]
    except BaseException:
        print(composed.logs())
        raise
    finally:
        composed.down()


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory: pytest.TempPathFactory) -> SavedModels:
    """Small SavedModels, each of which answers with the number of its content."""
    return SavedModels(layout.TF_SERVING_PYTHON, tmp_path_factory.mktemp("probe"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failure is shown with the last log lines of every container."""
    report = yield
    running = item.config.stash.get(RUNNING, None)
    if report.failed and running is not None:
        report.sections.append(("Logs of the containers", running.logs()))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What was measured on the way."""
    lines = config.stash.get(MEASURED, [])
    if lines:
        terminalreporter.write_sep("=", "measured")
        terminalreporter.write_line("\n".join(lines))
