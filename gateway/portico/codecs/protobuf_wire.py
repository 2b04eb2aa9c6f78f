"""Large values of protobuf messages, put in and taken out beside the messages, each of which would copy them once more.
Used by the codecs of gRPC protocols; must not know what the values are.

Source: protobuf's encoding, "Message Structure". All fields of the messages that are taken apart here are strings,
bytes or messages.
"""

from collections.abc import MutableSequence
from typing import Any

import numpy as np

from portico.errors import InvalidRequest

LARGE = 1 << 16
"""Bytes from which on a message is worth taking apart in Python."""

_LENGTH_DELIMITED = 2
"""Protobuf's wire type of messages, strings and bytes."""

_AT_ONCE = 1 << 13
"""Numbers that are Python's objects at one time."""


def prefix(number: int, size: int) -> bytes:
    """What stands before a value of `size` bytes in field `number`."""
    written = bytearray()
    for value in (number << 3 | _LENGTH_DELIMITED, size):
        while value > 0x7F:
            written.append(value & 0x7F | 0x80)
            value >>= 7
        written.append(value)
    return bytes(written)


def field(number: int, value: bytes) -> bytes:
    """A serialized message with nothing but this field."""
    return prefix(number, len(value)) + value


def split(message: bytes, number: int) -> tuple[bytes, list[memoryview]]:
    """(a serialized message without one of its fields, the values of that). Nothing else of it is read.

    Raises InvalidRequest for what is no such message.
    """
    view = memoryview(message)
    position = 0
    kept: list[memoryview] = []
    values: list[memoryview] = []
    while position < len(message):
        start = position
        tag, position = _varint(message, position)
        size, position = _varint(message, position)
        begins, position = position, position + size
        if tag & 7 != _LENGTH_DELIMITED or position > len(message):
            raise InvalidRequest("the message breaks off, or is none")
        if tag >> 3 == number:
            values.append(view[begins:position])
        else:
            kept.append(view[start:position])
    return b"".join(kept), values


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """(value, where it ends)."""
    value = shift = 0
    while position < len(message) and shift < 64:
        byte = message[position]
        position, value, shift = position + 1, value | (byte & 0x7F) << shift, shift + 7
        if byte < 0x80:
            return value, position
    raise InvalidRequest("the message breaks off, or is none")


def extend(repeated: MutableSequence[Any], values: "np.ndarray[Any, Any]") -> None:
    """Puts numbers into a repeated field."""
    for start in range(0, len(values), _AT_ONCE):
        repeated.extend(values[start : start + _AT_ONCE].tolist())
