"""One stack of real processes for all tests of this folder, serving a copy of the demo repository."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # door.py; importlib's mode of pytest does not find what lies beside

from door import Door

from portico.local import layout
from portico.local.stack import Stack

RUNNING = pytest.StashKey[Stack]()
MODELS_SECONDS = 240.0


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Stack]:
    """Everything running, every demo model ready. A test that stops a part starts it again."""
    repository = tmp_path_factory.mktemp("stack") / "model-repository"
    shutil.copytree(layout.ROOT / "model-repository", repository)
    with Stack(repository) as running:
        pytestconfig.stash[RUNNING] = running
        models = running.wait_for_models(MODELS_SECONDS)
        assert {model.name for model in models if model.ready} == {"iris", "digits"}, f"{models}\n{running.tails()}"
        yield running
        del pytestconfig.stash[RUNNING]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failure is shown with the last log lines of every process."""
    report = yield
    running = item.config.stash.get(RUNNING, None)
    if report.failed and running is not None:
        report.sections.append(("Logs of the stack", running.tails()))
    return report


@pytest.fixture(scope="session")
def door(stack: Stack) -> Door:
    """A client of the stack's port for clients."""
    return Door(stack.addresses.clients)


@pytest.fixture(scope="session")
def tf_python() -> Path:
    """The Python that has TensorFlow and TF Serving's own stubs."""
    return layout.TF_SERVING_PYTHON


@pytest.fixture(scope="session")
def torch_python() -> Path:
    """The Python that has PyTorch and TorchServe's own stubs."""
    return layout.TORCHSERVE_PYTHON


@pytest.fixture
def repository(stack: Stack) -> Path:
    """The model repository that the stack serves; what a test puts there it takes away again."""
    return stack.models
