"""JSON ↔ tensors: nothing is guessed, nothing is lost, and what is refused is explained."""

import json
import struct
import tracemalloc
from math import isfinite, isnan, prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.codecs.json_values import (
    array_of,
    flatten,
    nested_text,
    parse,
    parse_object,
    render,
    render_numbers,
    tensor_from,
    text_of,
)
from portico.errors import InvalidRequest, NotRepresentable
from portico.inference import ITEM_SIZE, MAX_RANK, Tensor, pack_bytes

# How Python's struct writes one value.
CODES = {"BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h"}
CODES |= {"INT32": "i", "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d"}
WHOLE = [datatype for datatype in CODES if "INT" in datatype]
BITS = {"FP16": 16, "FP32": 32, "FP64": 64}


def limits(datatype: str) -> tuple[int, int]:
    size = 8 * ITEM_SIZE[datatype]
    return (0, (1 << size) - 1) if datatype.startswith("U") else (-(1 << size - 1), (1 << size - 1) - 1)


def values_of(datatype: str) -> st.SearchStrategy[Any]:
    if datatype == "BOOL":
        return st.booleans()
    if datatype in BITS:
        return st.floats(width=BITS[datatype], allow_nan=False)  # type: ignore[arg-type]
    return st.integers(*limits(datatype))


def nested(values: list[Any], shape: tuple[int, ...]) -> Any:
    """Row-major values as nested lists."""
    if not shape:
        return values[0]
    size = prod(shape[1:])
    return [nested(values[row * size : (row + 1) * size], shape[1:]) for row in range(shape[0])]


@st.composite
def arrays(draw: st.DrawFn) -> tuple[str, tuple[int, ...], list[Any]]:
    """(datatype, shape without zeros, flat values)."""
    datatype = draw(st.sampled_from(list(CODES)))
    shape = tuple(draw(st.lists(st.integers(1, 3), max_size=4)))
    count = prod(shape)
    return datatype, shape, draw(st.lists(values_of(datatype), min_size=count, max_size=count))


@given(arrays())
def test_numbers_of_every_datatype(array: tuple[str, tuple[int, ...], list[Any]]) -> None:
    """Values of every datatype become their little-endian bytes, from nested lists as from a flat one with a shape."""
    datatype, shape, values = array
    expected = Tensor("x", datatype, shape, struct.pack(f"<{len(values)}{CODES[datatype]}", *values))
    assert tensor_from("x", nested(values, shape), datatype) == expected
    assert tensor_from("x", nested(values, shape), datatype, shape) == expected
    assert tensor_from("x", values, datatype, shape) == expected


@given(arrays())
def test_numbers_come_back(array: tuple[str, tuple[int, ...], list[Any]]) -> None:
    """What is read from JSON and written as JSON is the same JSON, infinities and the smallest numbers included."""
    datatype, shape, values = array
    tensor = tensor_from("x", parse(json.dumps(nested(values, shape)).encode()), datatype)
    written = render_numbers({"values": array_of(tensor).ravel()})
    back = json.loads(written)["values"]
    assert struct.pack(f"<{len(back)}{CODES[datatype]}", *back) == tensor.data


@pytest.mark.parametrize("datatype", [*CODES, "BF16", "BYTES"])
@pytest.mark.parametrize(("value", "shape"), [([], (0,)), ([[], []], (2, 0)), ([[[]]], (1, 1, 0))])
def test_empty_lists(datatype: str, value: Any, shape: tuple[int, ...]) -> None:
    """Empty lists are an empty tensor of any datatype, in their own shape."""
    tensor = tensor_from("x", value, datatype)
    assert (tensor.shape, tensor.data) == (shape, b"")


@pytest.mark.parametrize("datatype", WHOLE)
def test_integers_at_their_limits(datatype: str) -> None:
    """The least and the greatest value are taken, together in one list; a step beyond is refused with the limits."""
    least, greatest = limits(datatype)
    assert tensor_from("x", [least, 1, greatest], datatype).data == struct.pack(
        f"<3{CODES[datatype]}", least, 1, greatest
    )
    for value in (least - 1, greatest + 1):
        with pytest.raises(InvalidRequest, match=f"'x': a value does not fit {datatype} \\({least} to {greatest}\\)"):
            tensor_from("x", [1, value], datatype)


@pytest.mark.parametrize(
    ("datatype", "value"),
    [("FP16", 65520.0), ("FP16", -70000), ("FP32", 3.5e38), ("FP32", 10**400), ("FP64", 10**400), ("BF16", 3.4e38)],
)
def test_numbers_too_great(datatype: str, value: float) -> None:
    """A finite number that the datatype can only hold as infinity is refused."""
    with pytest.raises(InvalidRequest, match=f"'x': a value does not fit {datatype} .*to.*"):
        tensor_from("x", [0, value], datatype)


@pytest.mark.parametrize(("datatype", "greatest"), [("FP16", 65504.0), ("FP32", 3.4028234e38), ("BF16", 3.3895e38)])
def test_numbers_at_their_limits(datatype: str, greatest: float) -> None:
    """The greatest number that a datatype holds is taken."""
    assert array_of(tensor_from("x", [greatest, -greatest], datatype)).tolist() == pytest.approx(
        [greatest, -greatest], rel=1e-3
    )


@pytest.mark.parametrize(
    ("datatype", "value", "held"),
    [
        ("FP32", ["1.5"], "strings"),
        ("FP32", [1.5, "a"], "strings"),
        ("FP32", [None], "nulls"),
        ("FP32", [True, 1.5], "booleans"),
        ("FP32", True, "booleans"),
        ("FP32", [{}], "objects"),
        ("FP32", {"b64": "AAAA"}, "objects"),
        ("BF16", ["x"], "strings"),
        ("INT32", [1, 1.0], "floating-point numbers"),
        ("INT32", [True], "booleans"),
        ("INT64", [None, "a", 1], "nulls and strings"),
        ("BOOL", [0, 1], "integers"),
        ("BOOL", ["true"], "strings"),
        ("BYTES", [1, "a"], "integers"),
        ("BYTES", [None], "nulls"),
        ("BYTES", {"b": "x"}, "objects"),
        ("BYTES", [True], "booleans"),
    ],
)
def test_values_of_another_kind(datatype: str, value: Any, held: str) -> None:
    """A value that is not of the datatype is refused: which input, what the model takes, what the data holds."""
    with pytest.raises(InvalidRequest) as caught:
        tensor_from("x", value, datatype)
    assert str(caught.value) == f"Input 'x': the model takes {datatype}, its data holds {held}."


def test_integers_are_numbers() -> None:
    """JSON's 1 is a number like 1.0 where fractions are taken."""
    assert array_of(tensor_from("x", [1, 0.5], "FP64")).tolist() == [1, 0.5]


@pytest.mark.parametrize("datatype", ["FP32", "INT64", "BYTES"])
@pytest.mark.parametrize("value", [[[1], [1, 2]], [[1], 2], [1, [2]], [[], [1]], [[[1]], [[1], [2]]], [[1, []]]])
def test_ragged_lists(datatype: str, value: Any) -> None:
    """Rows of several lengths are refused as ragged, whatever they hold."""
    with pytest.raises(InvalidRequest, match="'x': its lists are ragged"):
        tensor_from("x", value, datatype)


def test_lists_nested_without_end() -> None:
    """Lists nested deeper than any tensor are refused."""
    value: Any = 1
    for _ in range(MAX_RANK):
        value = [value]
    assert tensor_from("x", value, "FP32").shape == (1,) * MAX_RANK
    with pytest.raises(InvalidRequest, match="'x': its lists are nested deeper than 64"):
        tensor_from("x", [value], "FP32")


def test_one_long_string_among_many() -> None:
    """A long string where numbers are wanted is refused, and costs no more memory than it has."""
    value = ["x" * 100_000, *[""] * 10_000]
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest, match="holds strings"):
            tensor_from("x", value, "FP32")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize("datatype", ["FLOAT", "fp32", "", "STRING"])
def test_unknown_datatypes(datatype: str) -> None:
    """A datatype that is none is refused, with those there are."""
    with pytest.raises(InvalidRequest, match=f"'x': datatype '{datatype}' is none of BOOL, .*FP64, BF16, BYTES"):
        tensor_from("x", [1], datatype)


@pytest.mark.parametrize(
    ("value", "shape", "says"),
    [
        ([1, 2, 3], (2, 2), r"shape \[2, 2\] holds 4 elements, 3 were given"),
        ([[1, 2, 3, 4]], (2, 2), r"nested as \[1, 4\], its shape is \[2, 2\]"),
        (1, (1,), r"nested as \[\], its shape is \[1\]"),
        ([], (1 << 62, 1 << 62), r"0 were given"),
        ([], ((1 << 63), 0), r"above 2\^63"),
    ],
)
def test_values_that_do_not_make_the_shape(value: Any, shape: tuple[int, ...], says: str) -> None:
    """Values that are too few, too many or nested otherwise than the shape says are refused."""
    with pytest.raises(InvalidRequest, match=f"'x': .*{says}"):
        tensor_from("x", value, "FP32", shape)


def test_a_scalar() -> None:
    """A number outside any list is a tensor without dimensions."""
    assert tensor_from("x", 1.5, "FP32") == Tensor("x", "FP32", (), struct.pack("<f", 1.5))
    assert tensor_from("x", [1.5], "FP32", ()) == Tensor("x", "FP32", (), struct.pack("<f", 1.5))


@given(st.floats(width=16), st.floats(-70000, 70000))
def test_fp16_is_rounded_to_nearest(exact: float, any_number: float) -> None:
    """FP16 holds its own numbers exactly, and of others the nearest, as Python's struct rounds them."""
    if not isnan(exact):
        assert tensor_from("x", [exact], "FP16").data == struct.pack("<e", exact)
    if abs(any_number) < 65504:
        assert tensor_from("x", [any_number], "FP16").data == struct.pack("<e", any_number)


# Upper halves of any FP32, and lower halves at and around the middle between two BF16.
HALVES = st.tuples(st.integers(0, 0xFFFF), st.sampled_from([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF]))
NEAR_TIES = HALVES.map(lambda halves: struct.unpack("<f", struct.pack("<I", halves[0] << 16 | halves[1]))[0])


@given(st.floats(width=32, allow_nan=False, allow_infinity=False) | NEAR_TIES.filter(isfinite))
def test_bf16_is_rounded_to_nearest_even(value: float) -> None:
    """BF16 is the nearest number whose lower half is zero in FP32; of two that are as near, the even one."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    below = bits & 0xFFFF0000
    neighbours = [struct.unpack("<f", struct.pack("<I", part))[0] for part in (below, below + 0x10000)]
    if any(abs(neighbour) == float("inf") for neighbour in neighbours):
        return
    distances = [abs(neighbour - value) for neighbour in neighbours]
    if distances[0] == distances[1]:
        nearest = neighbours[below >> 16 & 1]
    else:
        nearest = neighbours[distances.index(min(distances))]
    tensor = tensor_from("x", [value], "BF16")
    assert len(tensor.data) == 2
    assert struct.pack("<f", array_of(tensor)[0]) == struct.pack("<f", nearest)


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64"])
def test_words_for_what_is_no_number(datatype: str) -> None:
    """NaN and the infinities are read from their words and written as them, in every floating-point datatype."""
    values = parse(b"[NaN, Infinity, -Infinity, 1.5]")
    array = array_of(tensor_from("x", values, datatype))
    assert render_numbers({"v": array}) == b'{"v":[NaN,Infinity,-Infinity,1.5]}'


def test_words_anywhere_in_an_answer() -> None:
    """The words are written wherever a value lies: in an array, a list, an object, or alone."""
    nan = np.array([float("nan")], "<f4")
    value = {"a": [{"b": nan}, np.float32("inf")], "c": float("-inf"), "d": np.array([1], "<i8"), "e": "x", "f": True}
    assert render_numbers(value) == b'{"a":[{"b":[NaN]},Infinity],"c":-Infinity,"d":[1],"e":"x","f":true}'


def test_finite_answers_are_json() -> None:
    """Without such words an answer is JSON that every parser reads, nested as the arrays are."""
    value = {"a": np.array([[1.5, 2]], "<f4"), "b": np.array([True]), "c": [np.float32(0.5), np.int64(3)], "d": None}
    assert json.loads(render_numbers(value)) == {"a": [[1.5, 2]], "b": [True], "c": [0.5, 3], "d": None}


def test_what_cannot_be_written() -> None:
    """A value that JSON has no form for is refused, and not written as something else."""
    with pytest.raises(NotRepresentable, match="cannot be written as JSON"):
        render({"a": object()})


def test_strings() -> None:
    """Text becomes its UTF-8, bytes stay what they are, in the lists' shape."""
    tensor = tensor_from("x", [["größer", b"\xff"], ["", "a\0"]], "BYTES")
    assert tensor == Tensor("x", "BYTES", (2, 2), pack_bytes(["größer".encode(), b"\xff", b"", b"a\0"]))
    assert tensor_from("x", "ab", "BYTES") == Tensor("x", "BYTES", (), pack_bytes([b"ab"]))
    assert tensor_from("x", ["a", "b"], "BYTES", (2, 1)).shape == (2, 1)


def test_text_of_strings() -> None:
    """Strings come back as text, flat or nested, and not a character less."""
    tensor = tensor_from("x", [["größer", "b"], ["", "a\0"]], "BYTES")
    assert text_of(tensor) == ["größer", "b", "", "a\0"]
    assert nested_text(tensor) == [["größer", "b"], ["", "a\0"]]
    assert nested_text(tensor_from("x", "a", "BYTES")) == "a"


def test_strings_that_are_no_text() -> None:
    """Bytes that are no UTF-8 are refused by the name of their tensor, as JSON holds only text."""
    with pytest.raises(NotRepresentable, match="'y' is not UTF-8"):
        text_of(Tensor("y", "BYTES", (1,), pack_bytes([b"\xff"])))


def test_more_dimensions_than_numpy_has() -> None:
    """A tensor that numpy cannot hold is refused as what cannot be written, numbers and strings alike."""
    shape = (1,) * (MAX_RANK + 1)
    for tensor in (Tensor("y", "FP32", shape, bytes(4)), Tensor("y", "BF16", shape, bytes(2))):
        with pytest.raises(NotRepresentable, match="'y' cannot be written as JSON"):
            array_of(tensor)
    with pytest.raises(NotRepresentable, match="'y' cannot be written as JSON"):
        nested_text(Tensor("y", "BYTES", shape, pack_bytes([b"a"])))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a": }',
        b"[1,]",
        b"nan",
        b"\xff\xfe",
        b'{"a": 1} x',
        b"[" * 100_000,
        b'"\\ud800"',
        b'{"a\\udfff": NaN}',
        b"1" * 5000 + b"NaN",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_what_is_no_json(body: bytes) -> None:
    """A text that is not JSON, or whose strings are not Unicode, is refused with where it breaks off."""
    with pytest.raises(InvalidRequest, match=r"The body is not JSON: .*(line|column|char)"):
        parse(body)


def test_text_beside_words() -> None:
    """A text with NaN in it is read to the same strings as one without, whatever they are written with."""
    for text in (rb'"\ud83d\ude00"', '"\U0001f600"'.encode(), rb'"\\ud800"', rb'"\u00e9"'):
        assert parse(b"[" + text + b", NaN]")[0] == parse(text)


@pytest.mark.parametrize("text", [rb'"\ud800"', rb'"\ude00\ud83d"', b'"\xed\xa0\x80"', b'"\xff"'])
def test_half_characters_beside_words(text: bytes) -> None:
    """Strings that are not Unicode are refused beside NaN as they are elsewhere."""
    for body in (text, b"[" + text + b", NaN]"):
        with pytest.raises(InvalidRequest, match="not JSON"):
            parse(body)


@given(st.binary(max_size=30) | st.text('[]{}":,\\ud8Nan1e-', max_size=12).map(str.encode))
def test_any_bytes_as_json(body: bytes) -> None:
    """Whatever bytes come as JSON, they are read or refused; and what was read can be written."""
    try:
        value = parse(body)
    except InvalidRequest:
        return
    render_numbers(value)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"[]", "a list"),
        (b"1", "a number"),
        (b"1.5", "a number"),
        (b'"x"', "a string"),
        (b"null", "null"),
        (b"true", "a boolean"),
        (b"NaN", "a number"),
    ],
)
def test_a_body_that_is_no_object(body: bytes, kind: str) -> None:
    """Where an object is needed, anything else is refused as what it is."""
    with pytest.raises(InvalidRequest, match=f"has to be a JSON object, it is {kind}"):
        parse_object(body)
    assert parse_object(b'{"a": [1]}') == {"a": [1]}


@given(st.recursive(st.integers() | st.none(), lambda inner: st.lists(inner, max_size=3), max_leaves=8))
def test_flattening_agrees_with_numpy(value: Any) -> None:
    """Lists are ragged, or have a shape, exactly when numpy says so."""
    try:
        expected = np.array(value, dtype=object)
        ragged = any(isinstance(element, list) for element in expected.ravel())
    except ValueError:
        ragged = True
    if ragged:
        with pytest.raises(ValueError, match="ragged"):
            flatten(value)
    else:
        shape, _, values = flatten(value)
        assert (shape, values) == (expected.shape, expected.ravel().tolist())
