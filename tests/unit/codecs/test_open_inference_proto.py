"""Messages ↔ tensors of the Open Inference Protocol: what goes in comes out, and nothing breaks in other words."""

import tracemalloc
from contextlib import suppress
from math import prod

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from portico.codecs.open_inference_proto import decode_request, encode_response, is_raw
from portico.errors import InvalidRequest
from portico.inference import ITEM_SIZE, Tensor, pack_bytes
from portico.wire import open_inference_pb2 as oip

SHAPES = st.lists(st.integers(0, 3), max_size=4).map(tuple)
RAW_ONLY = ("FP16", "BF16")


@st.composite
def tensors(draw: st.DrawFn, name: str = "x") -> Tensor:
    """Of any datatype and shape; floats are of any bits, NaN with a payload too."""
    datatype, shape = draw(st.sampled_from([*ITEM_SIZE, "BYTES"])), draw(SHAPES)
    count = prod(shape)
    if datatype == "BYTES":
        elements = draw(st.lists(st.binary(max_size=5), min_size=count, max_size=count))
        return Tensor(name, datatype, shape, pack_bytes(elements))
    if datatype == "BOOL":
        return Tensor(name, datatype, shape, bytes(draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))))
    size = count * ITEM_SIZE[datatype]
    return Tensor(name, datatype, shape, draw(st.binary(min_size=size, max_size=size)))


def as_request(response: oip.ModelInferResponse) -> oip.ModelInferRequest:
    """The outputs of a response as the inputs of a request; both have one form."""
    request = oip.ModelInferRequest(model_name="m", id="i", raw_input_contents=response.raw_output_contents)
    for output in response.outputs:
        request.inputs.add().MergeFromString(output.SerializeToString())
    return request


@given(tensors("a"), tensors("b"))
def test_raw_tensors_come_back(a: Tensor, b: Tensor) -> None:
    """Tensors of every datatype and shape go through the raw form unchanged, to the bit."""
    request = as_request(encode_response("m", "1", "i", [a, b], raw=True))
    assert is_raw(request)
    assert decode_request(request, signed=True).inputs == (a, b)


@given(tensors())
def test_typed_tensors_come_back(tensor: Tensor) -> None:
    """Tensors of every datatype that has typed contents go through them unchanged; the others come raw."""
    response = encode_response("m", "1", "i", [tensor], raw=False)
    assert bool(response.raw_output_contents) is (tensor.datatype in RAW_ONLY)
    (found,) = decode_request(as_request(response), signed=True).inputs
    if tensor.datatype in ("FP32", "FP64"):  # a NaN may lose its payload on the way through Python's floats
        assert (found.name, found.shape, len(found.data)) == (tensor.name, tensor.shape, len(tensor.data))
    else:
        assert found == tensor


@given(st.data())
def test_damaged_messages(data: st.DataObject) -> None:
    """A message that was cut, or has bytes changed, is a request or is refused, and nothing else happens."""
    drawn = data.draw(st.lists(tensors(), max_size=2))
    whole = as_request(encode_response("m", "1", "i", drawn, raw=data.draw(st.booleans()))).SerializeToString()
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for position in data.draw(st.lists(st.integers(0, max(len(damaged) - 1, 0)), max_size=3)) if damaged else ():
        damaged[position] = data.draw(st.integers(0, 255))
    try:
        request = oip.ModelInferRequest.FromString(bytes(damaged))
    except DecodeError:
        return
    with suppress(InvalidRequest):
        for tensor in decode_request(request, signed=data.draw(st.booleans())).inputs:
            assert tensor.check() is tensor


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("datatype", ["FP32", "BYTES", "INT8"])
def test_memory_of_a_huge_shape(raw: bool, datatype: str) -> None:
    """A shape of exabytes in a message of a few bytes is refused without memory being taken for it."""
    request = oip.ModelInferRequest(raw_input_contents=[b"\0\0\0\0"] if raw else [])
    request.inputs.add(name="x", datatype=datatype, shape=[1 << 40, 1 << 20])
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest, match=r"1152921504606846976|4611686018427387904"):
            decode_request(request, signed=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_one_way_for_all_outputs() -> None:
    """Where one output has no typed contents all outputs are raw: the protocol has no answer in both forms."""
    typed, raw = Tensor("a", "INT8", (1,), b"\1"), Tensor("b", "BF16", (1,), b"\x80\x3f")
    response = encode_response("m", "1", "", [typed, raw], raw=False)
    assert list(response.raw_output_contents) == [b"\1", b"\x80\x3f"]
    assert not response.outputs[0].HasField("contents")
