"""Long lists of numbers in a JSON text → numpy arrays, without a Python object for each number. Used by `json_values`,
which knows the way for all other JSON; must not know tensors.

A text is taken here only where that is certain to give the values that the other way gives. Of all else, and of what is
no JSON, nothing is said.
"""

import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, Literal

import numpy as np
import orjson
import simdjson

from portico.inference import MAX_RANK

LONG = 1 << 14
"""Bytes from which on a list is read here: half as many are read in the same time with Python's objects."""

PIECE = 1 << 17
"""Bytes of text that are read at once, since the parser takes some 20 times as much memory."""

_MARK = secrets.token_hex(8)
"""Stands for a list in the text around it. It is drawn at random, so that nobody can send it."""

_WHOLE = re.compile(rb"[ \t\r\n]*(?=\[)")
_MEMBER = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*(?=\[)")

_OF_NUMBERS = b"0123456789+-.eE \t\r\n"
"""All that is in a list of numbers beside its brackets and commas."""

Code = Literal["d", "i", "u"]
_FLOATS: tuple[tuple[Code, str], ...] = (("d", "<f8"),)
_INTEGERS: tuple[tuple[Code, str], ...] = (("i", "<i8"), ("u", "<u8"))
"""What simdjson calls its types, and what numpy does; the first that holds all numbers of a list is taken."""


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """A nested list of numbers: its shape, and its values, row-major, in parts. These are FP64 if any number of
    the text is written with a fraction or an exponent, else INT64, or UINT64 where INT64 does not hold them.
    """

    shape: tuple[int, ...]
    parts: Sequence["np.ndarray[Any, Any]"]
    lists: Callable[[], Any]
    """Gives the same in Python's lists."""

    @property
    def count(self) -> int:
        return prod(self.shape)

    @property
    def kinds(self) -> frozenset[type]:
        """Python's types for these numbers. Integers between those with fractions are not told apart."""
        return frozenset(float if part.dtype.kind == "f" else int for part in self.parts)

    def cast(self, wanted: "np.dtype[Any]") -> "Iterator[np.ndarray[Any, Any]]":
        """The parts in a numeric type that takes their kinds, rounded as Python rounds.

        Raises OverflowError for integers that do not fit, and has numpy see to floating-point numbers.
        """
        limits = np.iinfo(wanted) if wanted.kind in "iu" else None
        for part in self.parts:
            if limits is None:
                yield part.astype("<f8", copy=False).astype(wanted, copy=False)
                continue
            if part.min() < limits.min or part.max() > limits.max:
                raise OverflowError
            yield part.astype(wanted, copy=False)


def plain(value: Any) -> Any:
    """A value that may have been read as `Numbers`, without them."""
    return value.lists() if isinstance(value, Numbers) else value


def of_rows(value: Any) -> Numbers | None:
    """A value that is `Numbers`, or a list of rows that all are and have one shape; None for any other."""
    if not isinstance(value, list):
        return value if isinstance(value, Numbers) else None
    if not value or not isinstance(value[0], Numbers):
        return None
    if not all(isinstance(row, Numbers) and row.shape == value[0].shape for row in value):
        return None
    parts = [part for row in value for part in row.parts]
    return Numbers((len(value), *value[0].shape), parts, lambda: list(map(plain, value)))


def parse(body: bytes) -> Any:
    """The value of a JSON text, with `Numbers` where it has long lists of them as values of members or as a whole; None
    if it has none of these, or is no JSON.
    """
    marks: dict[str, Numbers] = {}
    around: list[bytes] = []
    done = 0
    for start, end in _candidates(body):
        numbers = _read(body, start, end)
        if numbers is not None:
            mark = f"{_MARK}{len(marks)}"
            marks[mark] = numbers
            around += body[done:start], b'"', mark.encode(), b'"'
            done = end
    if not marks:
        return None
    around.append(body[done:])
    try:
        value = orjson.loads(b"".join(around))
    except orjson.JSONDecodeError:
        return None
    return _with_numbers(value, marks)


def _candidates(body: bytes) -> Iterator[tuple[int, int]]:
    """(start, end) of what may be a long list of numbers. Between these there is a quote, and none is in them."""
    position = 0
    while len(body) - position >= LONG:
        quote = body.rfind(b'"', position, position + LONG)
        if quote >= 0:
            position = quote + 1
            continue
        end = body.find(b'"', position + LONG)
        end = len(body) if end < 0 else end
        opening = (_MEMBER if position else _WHOLE).match(body, position, end)
        if opening:
            start, brace = opening.end(), body.find(b"}", position, end)
            yield start, body.rfind(b"]", start, end if brace < 0 else brace) + 1
        position = end + 1


def _with_numbers(value: Any, marks: dict[str, Numbers]) -> Any:
    """The value with each list in place of its mark. Of two members of one name the last counts, as elsewhere."""
    whole = {"": value}
    inside: list[Any] = [whole]
    while inside:
        container = inside.pop()
        if isinstance(container, list):
            if not {dict, list}.isdisjoint(map(type, container)):
                inside += [element for element in container if isinstance(element, dict | list)]
            continue
        for name, member in container.items():
            if isinstance(member, str):
                container[name] = marks.get(member, member) if member.startswith(_MARK) else member
            elif isinstance(member, dict | list):
                inside.append(member)
    return whole[""]


def _read(body: bytes, start: int, end: int) -> Numbers | None:
    """The numbers of body[start:end], None if that is no list of them, or a ragged one."""
    fraction = any(body.find(sign, start, end) >= 0 for sign in (b".", b"e", b"E"))
    for code, memory in _FLOATS if fraction else _INTEGERS:
        try:
            shape, parts = _parts(body, start, end, code, memory)
        except (ValueError, TypeError, RuntimeError):  # simdjson's, for what is no JSON, no number, or too great a one
            continue
        if shape is not None:
            return Numbers(shape, parts, partial(orjson.loads, memoryview(body)[start:end]))
    return None


def _parts(
    body: bytes, start: int, end: int, code: Code, memory: str
) -> tuple[tuple[int, ...] | None, list["np.ndarray[Any, Any]"]]:
    """(shape, parts); no shape if it is no list, or a ragged one. Raises ValueError, TypeError, RuntimeError."""
    parser = simdjson.Parser()
    parts: list[np.ndarray[Any, Any]] = []
    structure: list[bytes] = []
    for text, within in _pieces(body, start, end):
        parts.append(np.frombuffer(_values(parser, text, code), memory).copy())  # simdjson's has room for brackets
        structure.append(within)
        if not len(parts[-1]):
            return None, parts
    count = sum(map(len, parts))
    if not any(structure):
        return (count,) if count else None, parts
    shape = _shape(b",".join(structure))
    # A comma too many is in the structure, and no number beside it.
    return shape if shape and prod(shape) == count else None, parts


def _values(parser: simdjson.Parser, text: bytes, code: Code) -> bytes:
    """A function of its own, since the parser is not to be used again before its list is gone."""
    found = parser.parse(text)
    if not isinstance(found, simdjson.Array):
        raise TypeError
    return found.as_buffer(of_type=code)


def _pieces(body: bytes, start: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    """(text to parse, its brackets and commas) of body[start:end] in pieces; without the latter for a flat list.

    A piece ends at any comma: the lists that are open there are closed behind it, and opened before the next one.
    """
    flat, view, depth = body.find(b"[", start + 1, end) < 0, memoryview(body), 0
    while start < end:
        cut = body.find(b",", start + PIECE, end)
        cut = end if cut < 0 else cut
        structure = b"" if flat else body[start:cut].translate(None, _OF_NUMBERS)
        opened = int(cut < end) if flat else depth + _opened(structure)
        yield b"".join((b"[" * depth, view[start:cut], b"]" * opened)), structure
        start, depth = cut + 1, opened


def _opened(structure: bytes) -> int:
    """How many more brackets open than close. A count by bytes takes longer where there are many."""
    signs = np.frombuffer(structure, "u1")
    return int(np.count_nonzero(signs == ord("["))) - int(np.count_nonzero(signs == ord("]")))


def _shape(structure: bytes) -> tuple[int, ...] | None:
    """The shape of nested lists of which only brackets and commas are left, None if they are ragged."""
    rank = len(structure) - len(structure.lstrip(b"["))
    if rank > MAX_RANK:
        return None
    sizes: list[int] = []
    element = b""
    for closed in range(1, rank + 1):
        length = structure.find(b"]" * closed) + 2 * closed - rank  # of the first list of this rank
        size = (length - 1) // (len(element) + 1)
        element = b"[" + ((element + b",") * size)[:-1] + b"]"
        sizes.append(size)
    return tuple(reversed(sizes)) if element == structure else None
