"""Reads how long a SavedModel's variables are, from the index that TensorFlow writes beside them. Called by
`saved_model`; the index is untrusted.

The index is a table as LevelDB has it (tensorflow/core/lib/io/format), its values are the messages of
tensorflow/core/protobuf/tensor_bundle.proto: a BundleHeaderProto under the empty key, then a BundleEntryProto each.
"""

from collections.abc import Iterator
from dataclasses import dataclass

_MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
_FOOTER = 48
_TRAILER = 5


class Broken(Exception):
    """Bytes that are not what they have to be."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The number of shards, and for how many bytes of each, by its number, there are tensors."""

    shards: int
    lengths: dict[int, int]


def read_index(index: bytes) -> Bundle | None:
    """The bundle that `index` describes, None if it is compressed, which TensorFlow's own never is. Raises Broken."""
    footer = index[-_FOOTER:]
    if len(footer) < _FOOTER or not footer.endswith(_MAGIC):
        raise Broken
    position = 0
    for _ in range(2):
        _, position = varint(footer, position)
    blocks = _block(index, footer, position)
    if blocks is None:
        return None
    shards, lengths = 0, dict[int, int]()
    for _, handle in _entries(blocks):
        block = _block(index, handle, 0)
        if block is None:
            return None
        for key, value in _entries(block):
            found = {number: content for number, content in fields(value) if isinstance(content, int)}
            if not key:
                shards = found.get(1, 0)
                continue
            shard = found.get(3, 0)
            lengths[shard] = max(lengths.get(shard, 0), found.get(4, 0) + found.get(5, 0))
    return Bundle(shards, lengths)


def _block(index: bytes, handle: bytes, position: int) -> bytes | None:
    offset, position = varint(handle, position)
    size, _ = varint(handle, position)
    if offset + size + _TRAILER > len(index):
        raise Broken
    return None if index[offset + size] else index[offset : offset + size]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values; each key repeats the beginning of the one before. Restart points at the end are not needed."""
    end = len(block) - 4 * (1 + int.from_bytes(block[-4:], "little"))
    if len(block) < 4 or end < 0:
        raise Broken
    position, key = 0, b""
    while position < end:
        shared, position = varint(block, position)
        rest, position = varint(block, position)
        size, position = varint(block, position)
        if shared > len(key) or position + rest + size > end:
            raise Broken
        key = key[:shared] + block[position : position + rest]
        position += rest
        yield key, block[position : position + size]
        position += size


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message in protobuf's wire format: numbers with integers or bytes. Raises Broken."""
    position = 0
    while position < len(message):
        tag, position = varint(message, position)
        kind = tag & 7
        if kind == 0:
            value, position = varint(message, position)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, position = varint(message, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise Broken
        if position + size > len(message):
            raise Broken
        yield tag >> 3, message[position : position + size]
        position += size


def varint(content: bytes, position: int) -> tuple[int, int]:
    """The number at `position`, in seven bits per byte, and where it ends. Raises Broken."""
    number = 0
    for shift in range(0, 64, 7):
        if position >= len(content):
            break
        byte = content[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise Broken
