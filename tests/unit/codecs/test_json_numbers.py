"""Long lists of numbers in JSON: read another way than the rest, and nobody can tell but by time and memory."""

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.codecs import json_numbers, json_values
from portico.codecs.handler import raw_response, tensors_of
from portico.codecs.json_numbers import Numbers, of_rows, plain
from portico.codecs.open_inference import decode_request
from portico.errors import InvalidRequest
from portico.inference import Tensor
from portico.routing import Wire

DATATYPES = [*json_values.NUMPY, "BF16", "BYTES", "FLOAT"]


@pytest.fixture(autouse=True, scope="module")
def short_ones_too() -> Iterator[None]:
    """Lists of a few bytes are taken for long ones, and read in pieces of a few bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_numbers, "LONG", 6)
        patch.setattr(json_numbers, "PIECE", 12)
        yield


def without_numbers(value: Any) -> Any:
    value = plain(value)
    if isinstance(value, dict):
        return {name: without_numbers(member) for name, member in value.items()}
    return list(map(without_numbers, value)) if isinstance(value, list) else value


def told(body: bytes, numbers: bool) -> list[str]:
    """All that can be learnt of a body: its value, its tensor of each datatype, its request; or why there is none."""
    try:
        value = json_values.parse(body, numbers)
    except InvalidRequest as error:
        return [str(error)]
    learnt = [repr(without_numbers(value))]
    for datatype in DATATYPES:
        try:
            learnt.append(repr(json_values.tensor_from("x", value, datatype)))
        except InvalidRequest as error:
            learnt.append(str(error))
    try:
        learnt.append(repr(decode_request(value, signed=True)) if isinstance(value, dict) else "")
    except InvalidRequest as error:
        learnt.append(str(error))
    return learnt


NUMBERS = st.sampled_from(
    [
        "0",
        "-0",
        "-0.0",
        "1e-400",
        "1E+2",
        "0.1e1",
        "65504.0",
        "65520",
        "3.4028235e38",
        "3.5e38",
        "1.7976931348623157e308",
    ]
)
INTEGERS = st.integers(-(1 << 65), 1 << 65).map(str) | st.integers(-300, 300).map(str)
FLOATS = st.floats(allow_nan=False, allow_infinity=False).map(repr)
ODD = st.sampled_from(["true", "null", '"a"', "[]", "{}", "1e400", "01", ".5", "+1", "NaN", "", "[1]", " "])


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """Nested lists of numbers, most of them regular, as a tensor's data or alone; some spoilt in places."""
    values = draw(st.sampled_from([INTEGERS, FLOATS, NUMBERS, NUMBERS | INTEGERS | FLOATS]))
    comma = draw(st.sampled_from([",", ", ", " ,\n"]))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))

    def nested(sizes: list[int]) -> str:
        if not sizes:
            return draw(values)
        return "[" + comma.join(nested(sizes[1:]) for _ in range(sizes[0])) + "]"

    data = nested(shape)
    if draw(st.booleans()):
        position = draw(st.integers(0, len(data)))
        data = data[:position] + draw(ODD | st.sampled_from('[],0-.e"{}\\')) + data[position:]
    if draw(st.booleans()):
        return data.encode()
    datatype = draw(st.sampled_from(DATATYPES))
    entry = f'{{"name": "x", "shape": {shape}, "datatype": "{datatype}", "data":{comma[1:]}{data}}}'
    return f'{{"inputs": [{", ".join([entry] * draw(st.integers(1, 2)))}]}}'.encode()


@given(texts())
def test_any_lists(body: bytes) -> None:
    """Whatever lists come, spoilt or not: the values, the tensors and the errors are those of the other way."""
    assert told(body, numbers=True) == told(body, numbers=False)


@pytest.mark.parametrize(
    "body",
    [
        b"[1,2,3,4,5,6,7,8,]",
        b"[,1,2,3,4,5,6,7,8]",
        b"[1,2,3,4,,5,6,7,8]",
        b"[[1,2,3],[4,5,6],]",
        b"[[1,222222222222,],[4,5,6]]",
        b"[[1,2],[3,4,5],[6]]",
        b"[[[1],[2]],[[3,4]]]",
        b"[[1,2],3,4,5,6,7,8]",
        b"[1,2,[3,4],5,6,7,8]",
        b"[-1,-2,-3]",
        b"[1152921573326323713,0]",
        b"[[1,2,3][4,5,6]]",
        b"[1[,2],3,4,5,6,7,8,9]",
        b"[[1,2,3],[4,5,6]",
        b"[[1,2,3],[4,5,6]]]",
        b"[1,2,3,4,5],[6,7,8,9,10]",
        b'{"a":[[1,2,3,4],[5,6,7,8]}',
        b'{"a":[1,2,3,4,5,6],[7,8]}',
        b'{"a":[1,2,3,4,5,6,7],"a":[8,9,10,11,12]}',
        b'["abcdef",[1,2,3,4,5,6,7,8],{"a":[1,2,3,4,5,6,7,8]}]',
        b'{"a":":[1,2,3,4,5,6,7,8]"}',
        b'{"a":"\\":[1,2,3,4,5,6,7,8]"}',
        b'{"a\\":[1,2,3,4,5,6,7,8]}',
        b'{"a":[1,2,3,4,5,6,7,8],"b":"\\ud800"}',
        b'{"a":[1,2,3,4,5,6,7,8],"b":\xff}',
        b'{"a":[1,2,3,4,5,6,7,8\xff]}',
        b'{"a":[1,2,3,4,5,6,7,8],"b":NaN}',
        b'{"a":{"b":[{"c":[1,2,3,4,5,6]},[7]],"d":[[8,9,10,11,12]]}}',
        b'{"inputs":[1,2,3,4,5,6,7,8]}',
        b'{"inputs":[{"name":"x","shape":[1,2,3,4,5,6,7,8],"datatype":"FP32","data":[1,2,3]}]}',
        b'{"inputs":[{"name":"x","shape":[1.5,2,3,4,5,6,7],"datatype":"FP32","data":[1,2,3]}]}',
        b'{"inputs":[{"name":[1,2,3,4,5,6,7,8],"shape":[1]}],"id":[1,2,3,4,5,6,7,8]}',
        b'{"inputs":[],"outputs":[1,2,3,4,5,6,7,8],"parameters":[1,2,3,4,5,6,7,8]}',
        b"[" * 65 + b"1,2,3,4" + b"]" * 65,
        b"[" * 2000 + b"1,2,3,4" + b"]" * 2000,
        b" " * 50 + b"[1,2,3,4,5,6,7,8]" + b" " * 50,
        b"[" + b" " * 50 + b",1,2,3,4,5,6,7,8]",
        b"[1,2,3,4,5,6,7,8]\x0c",
        b"]",
        b"        ",
    ],
    ids=lambda body: repr(body[:30]),
)
def test_what_looks_like_lists_of_numbers(body: bytes) -> None:
    """Lists that break off, lie in strings, come twice or are meant for something else are told of as they are."""
    assert told(body, numbers=True) == told(body, numbers=False)


@pytest.mark.parametrize(
    ("text", "shape", "kind"),
    [
        (b"[1,2,3,4,5,6,7,8,9,10]", (10,), "<i8"),
        (b"[[1, 2, 3],\n [4, 5, 6]]", (2, 3), "<i8"),
        (b"[[[1.5],[2]],[[3],[4]],[[5],[6]]]", (3, 2, 1), "<f8"),
        (b"[[[[[10000000]]]]]", (1, 1, 1, 1, 1), "<i8"),
        (b"[18446744073709551615,1]", (2,), "<u8"),
    ],
)
def test_what_is_read_without_objects(text: bytes, shape: tuple[int, ...], kind: str) -> None:
    """Lists of numbers are read into arrays, alone and as members, one beside the other, in any shape."""
    body = b'{"a":' + text + b',"b":{"c":[{"d": ' + text + b"}]}}"
    found = json_values.parse(body, numbers=True)
    for numbers in (json_values.parse(text, numbers=True), found["a"], found["b"]["c"][0]["d"]):
        assert isinstance(numbers, Numbers)
        assert numbers.shape == shape
        assert {part.dtype.str for part in numbers.parts} == {kind}
        assert np.concatenate(numbers.parts).tolist() == json_values.flatten(json_values.parse(text))[2]


def test_nobody_else_gets_them() -> None:
    """Who does not ask for them gets lists, and anybody gets short ones."""
    assert json_values.parse(b"[1,2,3,4,5,6,7,8]") == [1, 2, 3, 4, 5, 6, 7, 8]
    assert json_values.parse(b'{"abcdef":[1]}', numbers=True) == {"abcdef": [1]}
    with pytest.raises(InvalidRequest, match="has to be a JSON object, it is a list"):
        json_values.parse_object(b"[1,2,3,4,5,6,7,8]", numbers=True)


def test_rows_of_objects() -> None:
    """Rows that were read one by one are one tensor; rows of several shapes, or beside other values, are ragged."""
    long, longer, whole = (
        json_values.parse(text, numbers=True) for text in (b"[1.5,2,3]", b"[1.5,2,3,4]", b"[1,2,-3,4]")
    )
    together = of_rows([longer, whole])
    assert together is not None
    assert together.shape == (2, 4)
    expected = json_values.tensor_from("x", [[1.5, 2, 3, 4], [1, 2, -3, 4]], "FP32")
    assert json_values.tensor_from("x", [longer, whole], "FP32") == expected
    for ragged in ([long, longer], [long, 1], [1, long], [[1, 2, 3], longer]):
        with pytest.raises(InvalidRequest, match="ragged"):
            json_values.tensor_from("x", ragged, "FP32")
    assert json_values.tensor_from("x", [[1.5, 2, 3], long], "FP32").shape == (2, 3)


def test_answers_of_handlers() -> None:
    """A handler's long JSON of numbers becomes the same tensors as any other; what INT64 cannot hold stays a body."""
    body = b'{"a":[[1.5,2],[3,4],[5,6]],"b":[1,2,3,4,5,6,7,8]}'
    assert tensors_of(raw_response(body, "application/json"), (), Wire.AUTO) == (
        Tensor("a", "FP64", (3, 2), np.array([1.5, 2, 3, 4, 5, 6]).tobytes()),
        Tensor("b", "INT64", (8,), np.arange(1, 9).tobytes()),
    )
    (left,) = tensors_of(raw_response(b"[18446744073709551615,1,2]", ""), (), Wire.AUTO)
    assert left.name == "body"


@pytest.mark.parametrize("text", [b"[7,1,6]", b"1.5", b"[[-12345]]"])
def test_memory(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    """Millions of numbers take no Python object each: what they take are copies of the text, and eight bytes each."""
    monkeypatch.setattr(json_numbers, "PIECE", 1 << 17)
    body = b'{"x":[' + b",".join([text] * 500_000) + b"]}"
    tracemalloc.start()
    try:
        tensor = json_values.tensor_from("x", json_values.parse_object(body, numbers=True)["x"], "FP32")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(body) + 4 * len(tensor.data)
