"""Tensors in the neutral form: their bytes agree with their shape, or it is said why not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.errors import InvalidRequest
from portico.inference import ITEM_SIZE, MAX_RANK, Tensor, pack_bytes, unpack_bytes


@pytest.mark.parametrize("datatype", ITEM_SIZE)
def test_the_size_of_an_element(datatype: str) -> None:
    """An element is as large as its datatype's name says, in bits."""
    bits = "".join(filter(str.isdigit, datatype)) or "8"
    assert ITEM_SIZE[datatype] * 8 == int(bits)


@given(st.lists(st.binary(max_size=300)))
def test_bytes_elements_come_back(elements: list[bytes]) -> None:
    """What is packed as BYTES is unpacked as it was, empty elements included."""
    assert list(unpack_bytes(pack_bytes(elements))) == elements


def test_the_layout_of_bytes_elements() -> None:
    """Each element follows its length, four bytes little-endian, as `raw_input_contents` has it."""
    assert pack_bytes([b"ab", b"", b"c" * 258]) == b"\2\0\0\0ab\0\0\0\0\2\1\0\0" + b"c" * 258


@given(st.lists(st.binary(min_size=1), min_size=1), st.data())
def test_bytes_elements_that_break_off(elements: list[bytes], data: st.DataObject) -> None:
    """Packed data that breaks off within an element is refused, with the input's name."""
    packed = pack_bytes(elements)
    cut = data.draw(st.integers(len(packed) - len(elements[-1]) - 3, len(packed) - 1))
    with pytest.raises(InvalidRequest, match=r"'x'.*runs over the end"):
        list(unpack_bytes(packed[:cut], "x"))


@given(st.binary(max_size=40))
def test_unpacking_foreign_bytes(data: bytes) -> None:
    """Any bytes either unpack to elements that pack to the same bytes, or are refused."""
    try:
        elements = list(unpack_bytes(data))
    except InvalidRequest:
        return
    assert pack_bytes(elements) == data


@pytest.mark.parametrize("datatype", ITEM_SIZE)
def test_check_accepts_what_agrees(datatype: str) -> None:
    """For every datatype, data of the shape's size passes, scalars and empty tensors included."""
    for shape, count in (((), 1), ((3,), 3), ((2, 3), 6), ((2, 0, 3), 0)):
        tensor = Tensor("x", datatype, shape, bytes(count * ITEM_SIZE[datatype]))
        assert tensor.check() is tensor


@pytest.mark.parametrize("datatype", ITEM_SIZE)
def test_check_refuses_another_size(datatype: str) -> None:
    """Data that is a byte short or long is refused with the sizes wanted and given."""
    size = 6 * ITEM_SIZE[datatype]
    for given_bytes in (size - 1, size + 1):
        with pytest.raises(InvalidRequest, match=rf"'x': {datatype} .*\[2, 3\] takes {size} bytes, {given_bytes} were"):
            Tensor("x", datatype, (2, 3), bytes(given_bytes)).check()


def test_check_of_bytes() -> None:
    """A BYTES tensor needs as many elements as its shape holds."""
    assert Tensor("x", "BYTES", (2, 1), pack_bytes([b"a", b""])).check()
    with pytest.raises(InvalidRequest, match=r"'x': shape \[3\] holds 3 elements, the data 2"):
        Tensor("x", "BYTES", (3,), pack_bytes([b"a", b""])).check()


@pytest.mark.parametrize("size", [-1, 1 << 63])
def test_check_refuses_impossible_sizes(size: int) -> None:
    """A size that no protocol can carry is refused, even where the tensor is empty."""
    with pytest.raises(InvalidRequest, match=f"'x': shape .*{size}"):
        Tensor("x", "FP32", (size, 0), b"").check()


def test_check_refuses_unknown_datatypes() -> None:
    """A datatype that is none is refused, with those there are."""
    with pytest.raises(InvalidRequest, match=r"'x': datatype 'FLOAT' is none of BOOL, .*FP32.*, BYTES"):
        Tensor("x", "FLOAT", (1,), bytes(4)).check()


def test_check_of_a_huge_shape() -> None:
    """A shape of astronomic size is refused by its numbers alone."""
    with pytest.raises(InvalidRequest, match=r"takes .* bytes, 4 were given"):
        Tensor("x", "FP32", (1 << 62, 1 << 62), bytes(4)).check()


def test_check_of_a_huge_rank() -> None:
    """A shape of more dimensions than any tensor has is refused by their number, and is not multiplied."""
    Tensor("x", "INT8", (1,) * MAX_RANK, b"a").check()
    for datatype in ("FP32", "BYTES"):
        with pytest.raises(InvalidRequest, match="'x': a shape has up to 64 dimensions, not 40000"):
            Tensor("x", datatype, (1 << 62,) * 40_000, b"").check()
