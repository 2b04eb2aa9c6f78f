"""Hostile gRPC requests: valid messages taken apart by their descriptors and put together
wrongly, and frames that lie about what is in them. Used by the fuzz tests; knows protobuf's encoding and no protocol.
"""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from asgi_client import Headers
from choices import Choices

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
WIRES = (VARINT, FIXED64, LENGTH, 3, 4, FIXED32, 6, 7)
"""Wire types of protobuf's encoding; 3 and 4 are groups, 6 and 7 are none."""

NUMBERS = (
    *(0, 1, 2, 3, 4, 7, 9, 16, 64, 65, 127, 128, 255, 256, 1 << 15, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1),
    *(1 << 32, 1 << 40, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 4, (1 << 64) - 1, 1 << 64, (1 << 70) - 1),
)
"""As varints; those of 2^63 and more are negative to a signed field, those of 2^64 and more too long for any."""

TEXTS = (
    *(
        b"",
        b"\0",
        b" ",
        b"a" * 3000,
        b"%",
        b"{0}",
        b"'\"",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"..",
        b"/",
        b"\r\n",
        b"1e999",
    ),
    *(text.encode() for text in ("é", "\u202e", "\U0001f600", "\ufeff", "名")),
)
DEPTHS = (2, 60, 99, 101, 500, 4000)
"""Of nesting; protobuf's parsers go to 100."""

_NUMERIC = {
    FieldDescriptor.TYPE_DOUBLE: FIXED64,
    FieldDescriptor.TYPE_FLOAT: FIXED32,
    FieldDescriptor.TYPE_FIXED32: FIXED32,
    FieldDescriptor.TYPE_FIXED64: FIXED64,
    FieldDescriptor.TYPE_SFIXED32: FIXED32,
    FieldDescriptor.TYPE_SFIXED64: FIXED64,
}
"""Types of fields → wire types, where they are not varints."""


@dataclass(frozen=True)
class Field:
    """One field as it lies in a message. `lie` is added to the length that it is told to have."""

    number: int
    wire: int
    value: "int | bytes | tuple[Field, ...]"
    lie: int = 0

    @property
    def encoded(self) -> bytes:
        tag = varint(self.number << 3 | self.wire)
        if isinstance(self.value, int):
            sizes = {FIXED32: 4, FIXED64: 8}
            if self.wire not in sizes:
                return tag + varint(self.value)
            size = sizes[self.wire]
            return tag + (self.value % (1 << 8 * size)).to_bytes(size, "little")
        body = self.value if isinstance(self.value, bytes) else written(self.value)
        return tag + varint(max(len(body) + self.lie, 0)) + body if self.wire == LENGTH else tag + body


def varint(value: int) -> bytes:
    """Of any size, also over the ten bytes that protobuf allows."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def written(fields: Sequence[Field]) -> bytes:
    """The message of these fields."""
    return b"".join(field.encoded for field in fields)


def taken_apart(message: bytes, kind: Descriptor | None) -> tuple[Field, ...]:
    """The fields of a valid message, those of messages within it too."""
    fields: list[Field] = []
    position = 0
    while position < len(message):
        tag, position = _varint_at(message, position)
        number, wire = tag >> 3, tag & 7
        value: int | bytes | tuple[Field, ...]
        if wire == VARINT:
            value, position = _varint_at(message, position)
        else:
            size = {FIXED64: 8, FIXED32: 4}.get(wire, 0)
            if wire == LENGTH:
                size, position = _varint_at(message, position)
            value, position = message[position : position + size], position + size
            inner = _inner(kind, number)
            if wire == LENGTH and inner is not None:
                value = taken_apart(value, inner)
            elif wire != LENGTH:
                value = int.from_bytes(value, "little")
        fields.append(Field(number, wire, value))
    return tuple(fields)


def _varint_at(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value, shift, position = value | (byte & 0x7F) << shift, shift + 7, position + 1
        if byte < 0x80:
            return value, position


def _inner(kind: Descriptor | None, number: int) -> Descriptor | None:
    field = kind.fields_by_number.get(number) if kind is not None else None
    return field.message_type if field is not None else None


def mutated(choices: Choices, kind: Descriptor | None, seeds: Sequence[bytes], words: Sequence[str]) -> bytes:
    """One of `seeds`, which are messages of `kind`, with up to three things wrong, and perhaps its bytes; `words` are
    texts that mean something to the receiver.
    """
    fields = taken_apart(choices.one(seeds), kind)
    for _ in range(choices.upto(3)):
        fields = _changed(choices, fields, kind, words)
    message = written(fields)
    return damaged(choices, message) if choices.rarely(4) else message


def _changed(
    choices: Choices, fields: tuple[Field, ...], kind: Descriptor | None, words: Sequence[str]
) -> tuple[Field, ...]:
    """One thing changed, at this level or below."""
    messages = [index for index, field in enumerate(fields) if isinstance(field.value, tuple)]
    if messages and not choices.rarely(4):
        index = choices.one(messages)
        value = fields[index].value
        assert isinstance(value, tuple)
        within = _changed(choices, value, _inner(kind, fields[index].number), words)
        return (*fields[:index], replace(fields[index], value=within), *fields[index + 1 :])
    if not fields or choices.rarely(4):
        index = choices.upto(len(fields))
        return (*fields[:index], _any_field(choices, kind, words), *fields[index:])
    index = choices.upto(len(fields) - 1)
    return (*fields[:index], *_instead(choices, fields[index], kind, words), *fields[index + 1 :])


def _instead(choices: Choices, field: Field, kind: Descriptor | None, words: Sequence[str]) -> tuple[Field, ...]:
    """What stands in place of a field, none or several."""
    declared = kind.fields_by_number.get(field.number) if kind is not None else None
    match choices.one(("value", "value", "gone", "often", "wire", "lie", "number", "deep")):
        case "value" if declared is not None:
            return (_field_of(choices, declared, words),)
        case "gone":
            return ()
        case "often":
            return (field,) * choices.one((2, 3, 70, 300))
        case "wire":
            return (replace(field, wire=choices.one(WIRES)),)
        case "lie":
            return (replace(field, lie=choices.one((1, -1, -3, 2, 1000, 1 << 31, 1 << 62))),)
        case "number":
            return (replace(field, number=choices.one((0, 1, 2, 3, 15, 16, 19000, (1 << 29) - 1, 1 << 29))),)
        case "deep":
            return (_nested(field.number, choices.one(DEPTHS)),)
        case _:
            return (Field(field.number, LENGTH, choices.binary(8)),)


def _nested(number: int, depth: int) -> Field:
    body = b""
    for _ in range(depth):
        body = Field(number, LENGTH, body).encoded
    return Field(number, LENGTH, body)


def _any_field(choices: Choices, kind: Descriptor | None, words: Sequence[str]) -> Field:
    if kind is None or not kind.fields or choices.rarely(8):
        return Field(1 + choices.upto(40), LENGTH, choices.binary(8))
    return _field_of(choices, choices.one(kind.fields), words)


def _field_of(choices: Choices, field: FieldDescriptor, words: Sequence[str]) -> Field:
    """A field of the right wire type with a value that nobody expects; messages are of one field, or of none."""
    if field.message_type is not None:
        inner = () if choices.rarely(3) else (_any_field(choices, field.message_type, words),)
        return Field(field.number, LENGTH, inner)
    if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
        if choices.rarely(4):
            return Field(field.number, LENGTH, choices.binary(40))
        texts = TEXTS if choices.rarely(3) else [word.encode() for word in words]
        return Field(field.number, LENGTH, choices.one(texts))
    if choices.rarely(3):
        packed = (varint(choices.one(NUMBERS)) for _ in range(choices.upto(6)))
        return Field(field.number, LENGTH, b"".join(packed))
    return Field(field.number, _NUMERIC.get(field.type, VARINT), choices.one(NUMBERS))


def damaged(choices: Choices, data: bytes) -> bytes:
    """Cut off, with a bit flipped, or with bytes too many."""
    at = choices.upto(max(len(data) - 1, 0))
    match choices.one(("cut", "flip", "more")):
        case "flip" if data:
            return data[:at] + bytes([data[at] ^ 1 << choices.upto(7)]) + data[at + 1 :]
        case "more":
            return data[:at] + choices.binary(12) + data[at:]
        case _:
            return data[:at]


@lru_cache(maxsize=2)
def bomb(size: int) -> bytes:
    """A gzip stream of `size` zeros."""
    return gzip.compress(bytes(size), mtime=0)


def frame(message: bytes, flag: int = 0, lie: int = 0) -> bytes:
    """gRPC's prefix and a message; the prefix tells `lie` bytes more than there are."""
    return bytes([flag]) + ((len(message) + lie) % (1 << 32)).to_bytes(4, "big") + message


def body_with(choices: Choices, message: bytes, inflated: int) -> tuple[bytes, Headers]:
    """(body, headers) of a unary call, most with one right frame; `inflated` bytes are the most that one unpacks to."""
    match 19 - choices.upto(19):
        case 0:
            return frame(message)[: choices.upto(4)], ()
        case 1:
            return frame(message, lie=choices.one((-2, -1, 1, 5, 1 << 20, (1 << 32) - 1))), ()
        case 2:
            return frame(message, flag=1 + choices.upto(254)), ()
        case 3:
            return frame(message) * (2 + choices.upto(2)), ()
        case 4:
            return frame(message, flag=1), _encoding(choices.one((b"gzip", b"deflate", b"br", b"\xff")))
        case 5:
            packed = gzip.compress(message, mtime=0)
            return frame(choices.one((packed, packed[:-3], packed + b"more")), flag=1), _encoding(b"gzip")
        case 6:
            return frame(bomb(inflated), flag=1), _encoding(b"gzip")
        case 7:
            return frame(message), ((b"grpc-timeout", choices.one((b"0n", b"99999999H", b"-1S", b"5", b"1e3S"))),)
        case _:
            return frame(message), ()


def _encoding(name: bytes) -> Headers:
    return ((b"grpc-encoding", name),)
