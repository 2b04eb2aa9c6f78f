"""Tensors ↔ what a TorchServe handler reads and writes."""

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.codecs.handler import body_of, raw_request, raw_response, request_body, tensors_of
from portico.errors import InvalidRequest, NotRepresentable
from portico.inference import Form, InferenceRequest, InferenceResponse, Tensor, pack_bytes


def strings(name: str, *elements: bytes, shape: tuple[int, ...] | None = None) -> Tensor:
    return Tensor(name, "BYTES", (len(elements),) if shape is None else shape, pack_bytes(elements))


def floats(name: str, *values: float, shape: tuple[int, ...] | None = None) -> Tensor:
    packed = struct.pack(f"<{len(values)}f", *values)
    return Tensor(name, "FP32", (len(values),) if shape is None else shape, packed)


def body(*inputs: Tensor, content_type: str = "") -> tuple[bytes, str]:
    return request_body(InferenceRequest(inputs, content_type=content_type))


@given(st.binary(), st.sampled_from(["image/png", "application/json", "text/plain; charset=utf-8"]))
def test_a_body_goes_through(content: bytes, content_type: str) -> None:
    """A raw body reaches the handler byte for byte, with its content type; so does its answer the client."""
    request = raw_request(content, content_type)
    assert request_body(request) == (content, content_type)
    assert request.form is Form.BODY
    response = raw_response(content, content_type)
    assert body_of(response) == content
    assert response.content_type == content_type
    assert raw_response(content, "").content_type == ""


@pytest.mark.parametrize("shape", [(), (1,)])
def test_one_string_is_a_body(shape: tuple[int, ...]) -> None:
    """One BYTES element of any name is the body as it is, of the content type that the request says."""
    png = strings("image", b"\x89PNG", shape=shape)
    assert body(png) == (b"\x89PNG", "application/octet-stream")
    assert body(png, content_type="image/png") == (b"\x89PNG", "image/png")


@pytest.mark.parametrize("content_type", ["a\r\nb: c", "a\nb", "a\0", "größe/x", "a/\U0001f600"])
def test_a_content_type_that_is_none(content_type: str) -> None:
    """A content type that would break the header it goes into is refused in a request, and left out of an answer."""
    with pytest.raises(InvalidRequest, match="content type"):
        body(strings("image", b"x"), content_type=content_type)
    assert raw_response(b"x", content_type) == raw_response(b"x", "")


@pytest.mark.parametrize(
    ("inputs", "sent"),
    [
        ([floats("x", 1, 2.5)], [1, 2.5]),
        ([floats("x", 1, 2, 3, 4, shape=(2, 2))], [[1, 2], [3, 4]]),
        ([floats("x", 1.5, shape=())], 1.5),
        ([floats("x", shape=(2, 0))], [[], []]),
        ([Tensor("x", "BF16", (1,), b"\x80\x3f")], [1.0]),
        ([Tensor("x", "BOOL", (2,), b"\0\1")], [False, True]),
        ([Tensor("x", "UINT64", (1,), b"\xff" * 8)], [2**64 - 1]),
        ([strings("x", b"a", "größer".encode())], ["a", "größer"]),
        ([strings("x", b"a", b"b", shape=(2, 1))], [["a"], ["b"]]),
        ([floats("x", 1), strings("y", b"a")], {"x": [1], "y": ["a"]}),
        ([floats("x", 1, shape=()), floats("y", 2)], {"x": 1, "y": [2]}),
    ],
)
def test_tensors_become_json(inputs: list[Tensor], sent: Any) -> None:
    """One tensor becomes JSON in its shape, several an object of them by name."""
    content, content_type = body(*inputs, content_type="image/png")
    assert (json.loads(content), content_type) == (sent, "application/json")


def test_numbers_that_json_has_not() -> None:
    """NaN and the infinities reach a handler as the words that Python's parser reads."""
    content, _ = body(floats("x", float("nan"), float("inf"), -float("inf")))
    assert content == b"[NaN,Infinity,-Infinity]"


def test_no_inputs() -> None:
    """A request without inputs has no body, and is refused."""
    with pytest.raises(InvalidRequest, match="no inputs"):
        body()


def test_bytes_in_a_mixture() -> None:
    """Bytes that are no text cannot lie beside other inputs in JSON; the input is named."""
    with pytest.raises(InvalidRequest, match="'image' is not UTF-8"):
        body(strings("image", b"\xff"), floats("x", 1))


def outputs_of(answer: Any) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    """The tensors of a handler's answer, which is JSON unless it is bytes."""
    content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    outputs = tensors_of(raw_response(content, ""))
    return [(tensor.name, tensor.datatype, tensor.shape, tensor.data) for tensor in outputs]


@pytest.mark.parametrize(
    ("answer", "datatype", "shape", "data"),
    [
        ([1, 2], "INT64", (2,), struct.pack("<2q", 1, 2)),
        ([[1], [-2]], "INT64", (2, 1), struct.pack("<2q", 1, -2)),
        (7, "INT64", (1,), struct.pack("<q", 7)),
        ([1.5], "FP64", (1,), struct.pack("<d", 1.5)),
        ([1, 2.5], "FP64", (2,), struct.pack("<2d", 1, 2.5)),
        (b"[Infinity, 1]", "FP64", (2,), struct.pack("<2d", float("inf"), 1)),
        ([True, False], "BOOL", (2,), b"\1\0"),
        ("größer", "BYTES", (1,), pack_bytes(["größer".encode()])),
        ([["a", "b\0"]], "BYTES", (1, 2), pack_bytes([b"a", b"b\0"])),
    ],
)
def test_json_becomes_a_tensor(answer: Any, datatype: str, shape: tuple[int, ...], data: bytes) -> None:
    """JSON that is a tensor becomes one: whole numbers INT64, others FP64, text BYTES, not a bit less."""
    assert outputs_of(answer) == [("output", datatype, shape, data)]


def test_an_object_becomes_tensors() -> None:
    """An object becomes one tensor for each of its keys, in their order."""
    assert outputs_of({"digit": 7, "probabilities": [0.5, 0.5]}) == [
        ("digit", "INT64", (1,), struct.pack("<q", 7)),
        ("probabilities", "FP64", (2,), struct.pack("<2d", 0.5, 0.5)),
    ]


@pytest.mark.parametrize(
    "answer",
    [
        b"\x89PNG\xff",
        b"hello",
        b"",
        None,
        {},
        [],
        [[1], [2, 3]],
        [1, "a"],
        [True, 1],
        [None],
        {"a": 1, "b": None},
        {"a": {"b": 1}},
        [2**63],
    ],
)
def test_what_is_no_tensor_stays_bytes(answer: Any) -> None:
    """An answer that is no JSON, or no tensor of one type, stays the one BYTES tensor that it is."""
    content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    assert outputs_of(answer) == [("body", "BYTES", (1,), pack_bytes([content]))]


@pytest.mark.parametrize(
    "outputs",
    [
        (floats("body", 1, 2),),
        (strings("body", b"1", b"2"),),
        (strings("text", b"[1]"),),
        (strings("body", b"[1]"), floats("y", 1)),
    ],
)
def test_answers_in_tensors_stay(outputs: tuple[Tensor, ...]) -> None:
    """An answer in tensors stays as it is, whatever its outputs are called, and is refused where a body is wanted."""
    response = InferenceResponse(outputs)
    assert tensors_of(response) == outputs
    with pytest.raises(NotRepresentable, match="answers in tensors"):
        body_of(response)


def test_wanted_outputs() -> None:
    """Of the outputs only those wanted are given; one that there is not is refused, with those there are."""
    response = raw_response(b'{"a": 1, "b": 2}', "")
    assert [tensor.name for tensor in tensors_of(response, ("b",))] == ["b"]
    assert [tensor.name for tensor in tensors_of(response, ("b", "a"))] == ["a", "b"]
    with pytest.raises(InvalidRequest, match=r"no output 'c'\. Its outputs: a, b"):
        tensors_of(response, ("a", "c"))


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
))  # fmt: skip
def test_any_json_is_an_answer(value: Any) -> None:
    """Whatever JSON a handler writes, its answer has tensors that agree with their shapes."""
    content = json.dumps(value).encode()
    for output in tensors_of(raw_response(content, "application/json")):
        assert output.check() is output
