"""Tensors ↔ a TorchServe handler's body, in the forms that a model's policy may say."""

import json
from base64 import b64decode
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.codecs.handler import raw_request, raw_response, request_body, tensors_of
from portico.codecs.json_values import NUMPY
from portico.errors import InferenceFailed, InvalidRequest
from portico.inference import Form, InferenceRequest, Tensor, pack_bytes
from portico.routing import Wire
from sample_gateway import tensor

JSON = "application/json"
TENSOR_WIRES = [Wire.JSON, Wire.KSERVE_V1, Wire.KSERVE_V2]


def strings(name: str, *elements: bytes, shape: tuple[int, ...] | None = None) -> Tensor:
    return Tensor(name, "BYTES", (len(elements),) if shape is None else shape, pack_bytes(elements))


def sent(wire: Wire, *inputs: Tensor) -> Any:
    """The JSON that a handler gets."""
    body, content_type = request_body(InferenceRequest(inputs), wire)
    assert content_type == JSON
    return json.loads(body)


def refusal(wire: Wire, *inputs: Tensor) -> str:
    with pytest.raises(InvalidRequest) as refused:
        request_body(InferenceRequest(inputs), wire)
    return str(refused.value)


def answered(wire: Wire, answer: Any, *wanted: str) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    """The tensors of a handler's answer, which is JSON unless it is bytes."""
    content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    outputs = tensors_of(raw_response(content, ""), wanted, wire)
    return [(output.name, output.datatype, output.shape, output.data) for output in outputs]


def failure(wire: Wire, answer: Any) -> str:
    with pytest.raises(InferenceFailed) as failed:
        answered(wire, answer)
    return str(failed.value)


def whole(name: str, *values: int) -> tuple[str, str, tuple[int, ...], bytes]:
    array = np.array(values, "<i8")
    return name, "INT64", array.shape, array.tobytes()


@st.composite
def tensors(draw: st.DrawFn, name: str = "x", rows: int | None = None) -> Tensor:
    """Any tensor that JSON can hold."""
    datatype = draw(st.sampled_from([*NUMPY, "BYTES"]))
    shape = tuple(draw(st.lists(st.integers(0, 3), min_size=1, max_size=3)))
    shape = shape if rows is None else (rows, *shape[1:])
    count = int(np.prod(shape))
    if datatype == "BYTES":
        elements = draw(st.lists(st.text(), min_size=count, max_size=count))
        return Tensor(name, datatype, shape, pack_bytes(element.encode() for element in elements))
    size = np.dtype(NUMPY[datatype]).itemsize
    data = draw(st.binary(min_size=count * size, max_size=count * size))
    if datatype == "BOOL":
        data = bytes(byte & 1 for byte in data)
    array = np.frombuffer(data, NUMPY[datatype])
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), array.dtype.type("nan"), array)  # which NaN it is, JSON does not say
    return Tensor(name, datatype, shape, array.tobytes())


@given(st.binary(), st.sampled_from(Wire))
def test_a_body_is_never_changed(content: bytes, wire: Wire) -> None:
    """What comes by TorchServe's own API goes to the handler as it is, whatever form its policy says."""
    assert request_body(raw_request(content, "image/png"), wire) == (content, "image/png")


@pytest.mark.parametrize("wire", Wire)
def test_no_inputs(wire: Wire) -> None:
    """A request without inputs is refused, whatever the form."""
    assert refusal(wire) == "The request has no inputs."


@given(st.binary(), st.sampled_from([(), (1,)]))
def test_raw(content: bytes, shape: tuple[int, ...]) -> None:
    """`raw` is one element of bytes going in, and one BYTES tensor coming out, JSON or not."""
    request = InferenceRequest((strings("any", content, shape=shape),), content_type="a/b")
    assert request_body(request, Wire.RAW) == (content, "a/b")
    assert request_body(InferenceRequest(request.inputs), Wire.RAW)[1] == "application/octet-stream"
    assert answered(Wire.RAW, content) == [("body", "BYTES", (1,), pack_bytes([content]))]
    assert answered(Wire.RAW, [1]) == [("body", "BYTES", (1,), pack_bytes([b"[1]"]))]


@pytest.mark.parametrize(
    "inputs",
    [
        (strings("a", b"1", b"2"),),
        (strings("a", b"1", shape=(1, 1)),),
        (strings("a", b"1"), strings("b", b"2")),
        (tensor("a", "INT64", "<i8", [1]),),
    ],
)
def test_raw_takes_one_body(inputs: tuple[Tensor, ...]) -> None:
    """`raw` refuses inputs that are not one body, and says what to give."""
    assert refusal(Wire.RAW, *inputs) == (
        "The model takes one body ('wire: raw' in its policy): give one input, BYTES with one element."
    )


def test_json() -> None:
    """`json` sends text as JSON too, one input as its values, several by name; answers come as they do by default."""
    assert sent(Wire.JSON, strings("s", b"hi")) == ["hi"]
    assert sent(Wire.JSON, strings("s", "größer".encode(), shape=())) == "größer"
    assert sent(Wire.JSON, strings("s", b"a", b"b", shape=(2, 1))) == [["a"], ["b"]]
    numbers = tensor("n", "FP32", "<f4", [[1, 2.5]])
    assert sent(Wire.JSON, numbers) == [[1, 2.5]]
    assert sent(Wire.JSON, numbers, strings("s", b"hi")) == {"n": [[1, 2.5]], "s": ["hi"]}
    assert "'s' is not UTF-8 text" in refusal(Wire.JSON, strings("s", b"\xff"))
    assert answered(Wire.JSON, {"digit": 7}) == [whole("digit", 7)]
    assert answered(Wire.JSON, b"\x89PNG") == [("body", "BYTES", (1,), pack_bytes([b"\x89PNG"]))]


def test_kserve_v1_instances() -> None:
    """`kserve_v1` sends the rows of one input, or of several inputs an object for each row."""
    numbers = tensor("n", "INT64", "<i8", [[1, 2], [3, 4]])
    assert sent(Wire.KSERVE_V1, numbers) == {"instances": [[1, 2], [3, 4]]}
    assert sent(Wire.KSERVE_V1, strings("s", b"hi")) == {"instances": ["hi"]}
    assert sent(Wire.KSERVE_V1, tensor("b", "BOOL", "?", [True])) == {"instances": [True]}
    assert sent(Wire.KSERVE_V1, numbers, strings("s", b"a", b"b")) == {
        "instances": [{"n": [1, 2], "s": "a"}, {"n": [3, 4], "s": "b"}]
    }
    image = sent(Wire.KSERVE_V1, strings("image", b"\xff\xd8"))
    assert [b64decode(row["b64"]) for row in image["instances"]] == [b"\xff\xd8"]


@pytest.mark.parametrize(
    "inputs",
    [
        (tensor("n", "INT64", "<i8", 1),),
        (tensor("n", "INT64", "<i8", [1, 2]), tensor("m", "INT64", "<i8", [1])),
        (tensor("n", "INT64", "<i8", [1]), tensor("m", "INT64", "<i8", 1)),
    ],
)
def test_kserve_v1_needs_rows(inputs: tuple[Tensor, ...]) -> None:
    """Inputs without rows, or with different numbers of them, are refused with their shapes."""
    text = refusal(Wire.KSERVE_V1, *inputs)
    assert text.startswith("The inputs ('n' [")
    assert "('wire: kserve_v1' in its policy)" in text


@pytest.mark.parametrize(
    ("predictions", "outputs"),
    [
        ([1, 2], [whole("predictions", 1, 2)]),
        ([{"a": 1, "b": 3}, {"a": 2, "b": 4}], [whole("a", 1, 2), whole("b", 3, 4)]),
        ({"a": [1, 2]}, [whole("a", 1, 2)]),
        (7, [whole("predictions", 7)]),
        (["x"], [("predictions", "BYTES", (1,), pack_bytes([b"x"]))]),
    ],
)
def test_kserve_v1_predictions(predictions: Any, outputs: Any) -> None:
    """Predictions become one tensor, or one for each key that they all have."""
    assert answered(Wire.KSERVE_V1, {"predictions": predictions, "more": 1}) == outputs
    name = outputs[-1][0]
    assert answered(Wire.KSERVE_V1, {"predictions": predictions}, name) == outputs[-1:]


@pytest.mark.parametrize("predictions", [[[1], [2, 3]], [{"a": 1}, {"b": 1}], [{}], [], {}, None, [{"a": {}}]])
def test_kserve_v1_predictions_that_are_no_tensor(predictions: Any) -> None:
    """Predictions that are no tensor leave the answer the BYTES tensor that it is."""
    content = json.dumps({"predictions": predictions}).encode()
    assert answered(Wire.KSERVE_V1, content) == [("body", "BYTES", (1,), pack_bytes([content]))]


def test_kserve_v2() -> None:
    """`kserve_v2` is the Open Inference Protocol both ways, and the outputs are exactly what the handler says."""
    numbers = tensor("n", "FP32", "<f4", [[1, 2.5]])
    entry = {"name": "n", "datatype": "FP32", "shape": [1, 2], "data": [1, 2.5]}
    text = {"name": "s", "datatype": "BYTES", "shape": [], "data": ["hi"]}
    assert sent(Wire.KSERVE_V2, numbers, strings("s", b"hi", shape=())) == {"inputs": [entry, text]}
    assert "'s' is not UTF-8 text" in refusal(Wire.KSERVE_V2, strings("s", b"\xff"))
    answer = {"id": "1", "model_name": "m", "outputs": [entry, {**entry, "name": "nested", "data": [[1, 2.5]]}]}
    assert answered(Wire.KSERVE_V2, answer) == [(name, "FP32", (1, 2), numbers.data) for name in ("n", "nested")]
    with pytest.raises(InvalidRequest, match=r"no output 'y'\. Its outputs: n, nested"):
        answered(Wire.KSERVE_V2, answer, "y")


def test_the_same_question_is_asked_in_the_same_words() -> None:
    """A request's id and the outputs it wants are not the handler's business: answers are kept without them."""
    one = InferenceRequest((tensor("n", "INT64", "<i8", [1]),), ("a",), id="1")
    other = InferenceRequest(one.inputs, ("b",), id="2")
    assert request_body(one, Wire.KSERVE_V2) == request_body(other, Wire.KSERVE_V2)


@pytest.mark.parametrize(
    ("wire", "answer", "says"),
    [
        (Wire.KSERVE_V1, b"\x89PNG", "The body is not JSON"),
        (Wire.KSERVE_V1, [1], "it is no JSON object with 'predictions'"),
        (Wire.KSERVE_V1, {"outputs": []}, "it is no JSON object with 'predictions'"),
        (Wire.KSERVE_V2, b"hello", "The body is not JSON"),
        (Wire.KSERVE_V2, [1], "needs a list 'outputs'"),
        (Wire.KSERVE_V2, {"predictions": [1]}, "needs a list 'outputs'"),
        (Wire.KSERVE_V2, {"outputs": [1]}, "Each of 'outputs' has to be an object with a 'name'"),
        (Wire.KSERVE_V2, {"outputs": [{"name": "y", "shape": [1], "datatype": "FP32"}]}, "'y' needs 'data'"),
        (
            Wire.KSERVE_V2,
            {"outputs": [{"name": "y", "shape": [2], "datatype": "FP32", "data": [1]}]},
            "says: 'y': shape [2] holds 2 elements, 1 were given",
        ),
        (
            Wire.KSERVE_V2,
            {"outputs": [{"name": "y", "shape": [1], "datatype": "INT8", "data": [1]}] * 2},
            "two outputs have one name",
        ),
    ],
)
def test_an_answer_of_another_form(wire: Wire, answer: Any, says: str) -> None:
    """A handler that does not answer in the form its policy says has failed, and the client reads how."""
    text = failure(wire, answer)
    assert text.startswith(f"The handler's answer is not of the form '{wire}', as its policy says: ")
    assert says in text


@given(tensors(), tensors("y"))
def test_kserve_v2_loses_nothing(x: Tensor, y: Tensor) -> None:
    """A handler that answers what it got gives back the very tensors, of any datatype and shape."""
    body, _ = request_body(InferenceRequest((x, y)), Wire.KSERVE_V2)
    echoed = json.dumps({"outputs": json.loads(body)["inputs"]}).encode()
    assert tensors_of(raw_response(echoed, JSON), (), Wire.KSERVE_V2) == (x, y)


@given(tensors(rows=2), tensors("y", rows=2))
def test_kserve_v1_keeps_rows_and_values(x: Tensor, y: Tensor) -> None:
    """A handler that answers its instances gives back the same values in the same rows, of JSON's datatypes."""
    body, _ = request_body(InferenceRequest((x, y)), Wire.KSERVE_V1)
    instances = json.loads(body)["instances"]
    assert len(instances) == 2
    echoed = tensors_of(raw_response(json.dumps({"predictions": instances}).encode(), JSON), (), Wire.KSERVE_V1)
    if [output.name for output in echoed] == ["body"]:
        # JSON has no shape for what is empty, and numbers become INT64.
        assert 0 in x.shape + y.shape or any(number >= 1 << 63 for entry in (x, y) for number in unsigned(entry))
        return
    for before, after in zip((x, y), echoed, strict=True):
        assert (after.name, after.shape) == (before.name, before.shape)
        assert as_datatype(after, before.datatype) == before.data


def unsigned(entry: Tensor) -> list[int]:
    return [int(number) for number in np.frombuffer(entry.data, "<u8")] if entry.datatype == "UINT64" else []


def as_datatype(entry: Tensor, datatype: str) -> bytes:
    """A tensor's data, its numbers in another datatype."""
    if entry.datatype == "BYTES":
        return entry.data
    with np.errstate(over="ignore"):
        return np.frombuffer(entry.data, NUMPY[entry.datatype]).astype(NUMPY[datatype]).tobytes()


@given(st.sampled_from(TENSOR_WIRES), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["predictions", "outputs"]), inner),
    max_leaves=6,
))  # fmt: skip
def test_any_json_is_an_answer_or_a_failure(wire: Wire, value: Any) -> None:
    """Whatever JSON a handler writes, its tensors agree with their shapes, or it has failed."""
    try:
        outputs = tensors_of(raw_response(json.dumps(value).encode(), JSON), (), wire)
    except InferenceFailed:
        assert wire in (Wire.KSERVE_V1, Wire.KSERVE_V2)
        return
    for output in outputs:
        assert output.check() is output


def test_parts_are_not_bodies() -> None:
    """A body is what `Form.BODY` says, and one BYTES tensor is a tensor to the wires of JSON."""
    one = strings("body", b"hi")
    assert request_body(InferenceRequest((one,), form=Form.BODY), Wire.KSERVE_V1)[0] == b"hi"
    assert sent(Wire.KSERVE_V1, one) == {"instances": ["hi"]}
