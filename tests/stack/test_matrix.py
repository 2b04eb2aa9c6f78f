"""Every dialect × every server × datatypes and shapes: the same numbers as from the model itself, or a clear refusal
where a dialect has no form for them. Made by hypothesis.
"""

import io
import json
import math
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dialects import DIALECTS, NUMPY, OF_TORCHSERVE, TORCH, CannotSay, Outcome, Refused, Tensor, tf_predict
from door import Door, eventually
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portico.local.stack import Stack

TF = "matrix-tf"
HANDLER = """
def handle(data, context):
    return data and [next(iter(row.values())) for row in data]
"""
EVERY = ("v2_binary", "v2_grpc_raw", "tf_grpc")
"""Dialects that can say any tensor."""
DATATYPES = (*NUMPY, "BF16", "BYTES")


@pytest.fixture(scope="module")
def models(stack: Stack, door: Door, tf_python: Path) -> Iterator[None]:
    """A model on each server that gives back what it is given."""
    script = Path(__file__).parent / "make_echo.py"
    staged = stack.models / f".{TF}"
    subprocess.run([str(tf_python), str(script), str(staged / "1")], check=True, capture_output=True, timeout=240)
    staged.rename(stack.models / TF)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        model = {"modelName": TORCH, "modelVersion": "1.0", "handler": "handler.py:handle"}
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "python", "model": model}))
        archive.writestr("handler.py", HANDLER)
    (stack.models / f"{TORCH}.mar").write_bytes(packed.getvalue())
    for name in (TF, TORCH):
        ready = f"/v2/models/{name}/ready"
        eventually(lambda path=ready: door.get(path).status == 200, 120, f"{name} is ready")  # type: ignore[misc]
    yield
    (stack.models / f"{TORCH}.mar").unlink()
    shutil.rmtree(stack.models / TF)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Any datatype, of rank 0 to 5, empty, one row, a thousand rows; any bits for numbers, texts and other bytes."""
    datatype = draw(st.sampled_from(DATATYPES))
    rank = draw(st.integers(0, 5))
    first = draw(st.sampled_from([0, 1, 2, 3, 1000]))
    sizes = st.integers(0, 2 if first == 1000 else 3)
    shape = (first, *(draw(sizes) for _ in range(rank - 1))) if rank else ()
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = math.prod(shape)
    if datatype == "BYTES":
        alphabet = draw(st.sampled_from([range(32, 127), range(256)]))
        texts = [bytes(random.choice(alphabet, random.integers(0, 12)).astype("u1")) for _ in range(count)]
        return Tensor(datatype, shape, texts)
    if datatype == "BOOL":
        return Tensor(datatype, shape, random.integers(0, 2, count).astype(bool).tolist())
    size = 2 if datatype == "BF16" else np.dtype(NUMPY[datatype]).itemsize
    return Tensor.of_raw(datatype, shape, random.bytes(count * size))


def is_text(tensor: Tensor) -> bool:
    try:
        b"".join(tensor.values).decode() if tensor.datatype == "BYTES" else None
    except UnicodeDecodeError:
        return False
    return True


def same(one: Any, other: Any) -> bool:
    """Whether two values are one: not-a-number is what it is."""
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and one == other


def equal(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(map(same, one, other))


def must_work_on_tf_serving(dialect: str, tensor: Tensor) -> bool:
    """Where a refusal is no answer."""
    if dialect in OF_TORCHSERVE:
        return False
    return dialect in EVERY or (is_text(tensor) and not (dialect == "rows" and tensor.shape[0] == 0))


@pytest.mark.usefixtures("models")
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tensor=tensors())
def test_models_of_tf_serving(stack: Stack, door: Door, tensor: Tensor) -> None:
    """Each dialect gives what TF Serving gives when it is called directly: the bits, the datatype and the shape."""
    inner = next(
        path.name for path in (stack.scratch / "stage" / "tf-serving").iterdir() if path.name.startswith(f"{TF}--")
    )
    directly = tf_predict(f"127.0.0.1:{stack.addresses.tf_serving}", inner, tensor)
    assert isinstance(directly, Tensor)
    for name, dialect in DIALECTS.items():
        try:
            outcome = dialect(door, TF, tensor)
        except CannotSay:
            continue
        if isinstance(outcome, Refused):
            assert not must_work_on_tf_serving(name, tensor), (name, outcome)
            check_refusal(outcome)
            continue
        assert (outcome.datatype, outcome.shape) == (directly.datatype, directly.shape), name
        assert equal(of_datatype(tensor, outcome.values), directly.values), name


FLOATS = {"FP16": "<f2", "BF16": "<f4", "FP32": "<f4", "FP64": "<f8"}


def of_datatype(tensor: Tensor, values: list[Any]) -> list[Any]:
    """Values as JSON may have them, in the tensor's datatype: it writes the shortest number that is the same there."""
    if tensor.datatype in FLOATS:
        return np.array(values, FLOATS[tensor.datatype]).tolist()  # type: ignore[no-any-return]
    return values


def check_refusal(refused: Refused) -> None:
    """It is the request's fault or the dialect's, never a failure of ours, and says what is wrong."""
    assert refused.code in (400, 406, "INVALID_ARGUMENT", "FAILED_PRECONDITION"), refused
    assert len(refused.text) > 20, refused


def must_work_on_torchserve(dialect: str, tensor: Tensor) -> bool:
    """JSON bodies reach a handler from every dialect; bytes that are no text need one that takes them as they are."""
    if dialect == "tf_columns":
        return tensor.datatype != "BYTES" or (is_text(tensor) and tensor.shape not in ((), (1,)))
    if dialect == "rows":
        return tensor.datatype != "BYTES" and tensor.shape[0] > 0
    if tensor.datatype == "BYTES":
        return tensor.shape in ((), (1,)) and (is_text(tensor) or dialect != "v2_json")
    return True


@pytest.mark.usefixtures("models")
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tensor=tensors())
def test_models_of_torchserve(door: Door, tensor: Tensor) -> None:
    """Each dialect gives the numbers that the handler gave, which are those that it was given."""
    for name, dialect in DIALECTS.items():
        try:
            outcome = dialect(door, TORCH, tensor)
        except CannotSay:
            continue
        if isinstance(outcome, Refused):
            assert not must_work_on_torchserve(name, tensor), (name, outcome)
            check_refusal(outcome)
        else:
            assert means_the_same(outcome, tensor), (name, outcome)


def means_the_same(outcome: Outcome, tensor: Tensor) -> bool:
    """Whether an answer through JSON holds the values. JSON has no datatypes: whole numbers come back as INT64, others
    as FP64, and what makes no tensor (an empty list, a number over 64 bits) as the text that the handler gave.
    """
    assert isinstance(outcome, Tensor)
    if tensor.datatype == "BYTES":
        if outcome.datatype == "BYTES":
            return outcome.values == tensor.values
        return outcome.values == np.ravel(json.loads(tensor.values[0])).tolist()
    if outcome.datatype == "BYTES":
        outcome = Tensor("", (), np.ravel(np.array(json.loads(outcome.values[0]), object)).tolist())
    return equal(of_datatype(tensor, outcome.values), tensor.values)
