"""The two training scripts, run with the environments they belong to, and the artefacts that lie in the repository."""

import json
import os
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = ROOT / "model-repository"
LARGEST_SAVED_MODEL = 200_000
LARGEST_ARCHIVE = 500_000

READ_SAVED_MODEL = """
import json, sys
import numpy, tensorflow
model = tensorflow.saved_model.load(sys.argv[1])
rows = json.load(open(sys.argv[2]))["instances"]
def specs(tree):
    return {name: [spec.dtype.name, spec.shape.as_list()] for name, spec in tree.items()}
answer = model.signatures["serving_default"](measurements=tensorflow.constant(rows, tensorflow.float32))
example = tensorflow.train.Example()
example.features.feature["measurements"].float_list.value.extend(rows[0])
classes = model.signatures["classify"](inputs=tensorflow.constant([example.SerializeToString()]))
print(json.dumps({
    "signatures": {name: [specs(signature.structured_input_signature[1]), specs(signature.structured_outputs)]
                   for name, signature in model.signatures.items()},
    "species": answer["species"].numpy().tolist(),
    "sums": answer["probabilities"].numpy().sum(axis=1).round(5).tolist(),
    "classified": classes["classes"].numpy()[0, classes["scores"].numpy()[0].argmax()].decode(),
}))
"""


def python_of(variable: str, environment: str) -> Path:
    """The Python of one of the environments that `make setup` makes."""
    python = Path(os.environ.get(variable) or ROOT / ".venv" / environment / "bin" / "python")
    assert python.exists(), f"there is no {python}: run `make setup`, or set {variable}"
    return python


def run(*command: str | Path) -> str:
    """What a command prints, with everything it said when it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def accuracy(printed: str) -> float:
    """The held-out accuracy that a training script reports."""
    found = re.search(r"held-out accuracy ([0-9.]+) on \d+", printed)
    assert found, printed
    return float(found[1])


@pytest.fixture(scope="module")
def tf_python() -> Path:
    return python_of("PORTICO_TF_PYTHON", "tf-serving")


@pytest.fixture(scope="module")
def torch_python() -> Path:
    return python_of("PORTICO_TORCH_PYTHON", "torchserve")


@pytest.fixture(scope="module")
def iris(tf_python: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A freshly trained iris model's version folder, and what its training printed."""
    out = tmp_path_factory.mktemp("iris")
    printed = run(tf_python, ROOT / "examples" / "iris" / "train.py", "--out", out)
    return out / "iris" / "1", printed


@pytest.fixture(scope="module")
def digits(torch_python: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A freshly trained digits archive, and what its training printed."""
    out = tmp_path_factory.mktemp("digits")
    printed = run(torch_python, ROOT / "examples" / "digits" / "train.py", "--out", out)
    return out / "digits.mar", printed


def read_saved_model(tf_python: Path, version: Path) -> dict[str, object]:
    """A SavedModel's signatures, and what it says to examples/iris/request.json."""
    request = ROOT / "examples" / "iris" / "request.json"
    answer: dict[str, object] = json.loads(run(tf_python, "-c", READ_SAVED_MODEL, version, request))
    return answer


def test_iris_learns(iris: tuple[Path, str]) -> None:
    """Training iris reaches its bound on flowers it has not seen, and writes a SavedModel small enough for git."""
    version, printed = iris
    assert accuracy(printed) >= 0.93
    assert (version / "saved_model.pb").is_file()
    assert (version / "variables" / "variables.index").is_file()
    assert sum(file.stat().st_size for file in version.rglob("*") if file.is_file()) < LARGEST_SAVED_MODEL
    assert [entry.name for entry in version.parent.iterdir()] == ["1"], "training left something beside the version"


def test_iris_signatures(iris: tuple[Path, str], tf_python: Path) -> None:
    """The committed iris model has the signatures that its script makes now, and both recognise the sample flowers."""
    committed = read_saved_model(tf_python, REPOSITORY / "iris" / "1")
    assert committed["signatures"] == {
        "serving_default": [
            {"measurements": ["float32", [None, 4]]},
            {"probabilities": ["float32", [None, 3]], "species": ["int64", [None]]},
        ],
        "classify": [
            {"inputs": ["string", [None]]},
            {"classes": ["string", [None, 3]], "scores": ["float32", [None, 3]]},
        ],
    }
    assert committed["species"] == [0, 1, 2]
    assert committed["sums"] == [1.0, 1.0, 1.0]
    assert committed["classified"] == "setosa"
    assert read_saved_model(tf_python, iris[0]) == committed


def test_digits_learns(digits: tuple[Path, str]) -> None:
    """Training digits reaches its bound on images it has not seen, and packs an archive small enough for git."""
    archive, printed = digits
    assert accuracy(printed) >= 0.97
    assert archive.stat().st_size < LARGEST_ARCHIVE
    assert [entry.name for entry in archive.parent.iterdir()] == ["digits.mar"], "training left something behind"


def test_digits_archive(digits: tuple[Path, str]) -> None:
    """The committed archive has the manifest its script makes now, and the handler and network that lie beside it."""
    with zipfile.ZipFile(REPOSITORY / "digits.mar") as committed, zipfile.ZipFile(digits[0]) as fresh:
        assert committed.namelist() == fresh.namelist()
        assert committed.read("MAR-INF/MANIFEST.json") == fresh.read("MAR-INF/MANIFEST.json")
        assert json.loads(committed.read("MAR-INF/MANIFEST.json"))["model"]["modelVersion"] == "1.0"
        for name in ("handler.py", "model.py"):
            source = (ROOT / "examples" / "digits" / name).read_bytes()
            assert committed.read(name) == source, f"{name} has changed: run examples/digits/train.py again"


def test_digits_repeatable(digits: tuple[Path, str], torch_python: Path, tmp_path: Path) -> None:
    """Training digits twice on one machine gives the same bytes, so nothing is loaded again for an unchanged model."""
    run(torch_python, ROOT / "examples" / "digits" / "train.py", "--out", tmp_path)
    assert (tmp_path / "digits.mar").read_bytes() == digits[0].read_bytes()
