"""Values that are written and read beside their message: protobuf itself reads and writes the same."""

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from portico.codecs import protobuf_wire
from portico.codecs.open_inference_proto import decode_request, encode_response, parse_request, serialize_response
from portico.codecs.tensorflow import encode_tensor, serialize_request
from portico.inference import ITEM_SIZE, Tensor, pack_bytes
from portico.wire import open_inference_pb2 as oip
from portico.wire import tf_serving_pb2 as tfs

LARGE = 200


@pytest.fixture(autouse=True, scope="module")
def large_is_small() -> Iterator[None]:
    """What is put in and taken out beside messages has some hundred bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protobuf_wire, "LARGE", LARGE)
        yield


@st.composite
def tensors(draw: st.DrawFn) -> list[Tensor]:
    """Up to three of any datatype, around the size from which on they are large; lengths of one and two bytes."""
    drawn = []
    for name in ("a", "ö", "c" * 150)[: draw(st.integers(0, 3))]:
        datatype, count = draw(st.sampled_from([*ITEM_SIZE, "BYTES"])), draw(st.sampled_from([0, 1, 25, 100, 2100]))
        if datatype == "BYTES":
            data = pack_bytes([b"x"] * count)
        elif datatype == "BOOL":
            data = b"\1" * count
        else:
            data = bytes(range(64)) * (count * ITEM_SIZE[datatype] // 64) + bytes(count * ITEM_SIZE[datatype] % 64)
        drawn.append(Tensor(name, datatype, (count,), data))
    return drawn


@given(tensors())
def test_requests_to_tf_serving(inputs: list[Tensor]) -> None:
    """A PredictRequest with large inputs is read as the message that has them as its own."""
    expected = tfs.PredictRequest(output_filter=["y"])
    expected.model_spec.name = "m"
    request = tfs.PredictRequest.FromString(expected.SerializeToString())
    for tensor in inputs:
        encode_tensor(tensor, into=expected.inputs[tensor.name])
    assert tfs.PredictRequest.FromString(serialize_request(request, inputs)) == expected


@given(tensors(), st.booleans())
def test_answers_of_open_inference(outputs: list[Tensor], raw: bool) -> None:
    """A serialized response is read as the message of the same outputs."""
    expected = encode_response("m", "1", "i", outputs, raw)
    assert oip.ModelInferResponse.FromString(b"".join(serialize_response("m", "1", "i", outputs, raw))) == expected


@given(tensors(), st.booleans())
def test_requests_of_open_inference(inputs: list[Tensor], raw: bool) -> None:
    """A request that was taken apart is the same as one that was read whole."""
    response = encode_response("m", "1", "", inputs, raw)
    message = oip.ModelInferRequest(model_name="m", raw_input_contents=response.raw_output_contents)
    for output in response.outputs:
        message.inputs.add().MergeFromString(output.SerializeToString())
    request, contents = parse_request(message.SerializeToString())
    assert contents == list(message.raw_input_contents)
    assert all(type(content) is bytes for content in contents)
    assert decode_request(request, True, contents) == decode_request(message, True)


@pytest.mark.parametrize("size", [10, 1000])
def test_what_is_no_request(size: int) -> None:
    """A message that breaks off is refused by protobuf, small or large, whatever it breaks off in."""
    whole = oip.ModelInferRequest(model_name="m" * size, raw_input_contents=[bytes(size)]).SerializeToString()
    for message in (whole[:-1], whole[: size // 2], whole + b"\x08", whole + b"\x0a\x01\xff"):
        with pytest.raises(DecodeError):
            parse_request(message)
        with pytest.raises(DecodeError):
            oip.ModelInferRequest.FromString(message)


@pytest.mark.parametrize("number", [1, 15, 16, 2047, 2048])
@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 1 << 21])
def test_fields_of_all_lengths(number: int, size: int) -> None:
    """A field is found again by its number, and is all that is taken out."""
    value, others = bytes(size), protobuf_wire.field(3, b"abc")
    message = others + protobuf_wire.field(number, value) + others
    rest, values = protobuf_wire.split(message, number)
    assert rest == others * 2
    assert list(map(bytes, values)) == [value]


@pytest.mark.parametrize("count", [0, 1, 8191, 8192, 20_000])
def test_numbers_into_a_field(count: int) -> None:
    """All numbers come into a repeated field, in their order."""
    contents = oip.InferTensorContents()
    protobuf_wire.extend(contents.int64_contents, np.arange(count))
    assert list(contents.int64_contents) == list(range(count))


def test_memory() -> None:
    """Typed values of an answer take no Python object each."""
    tensors = [Tensor(datatype, datatype, (1 << 18,), bytes(1 << 20)) for datatype in ("FP32", "INT32")]
    tracemalloc.start()
    try:
        encode_response("m", "1", "", tensors, raw=False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 21
