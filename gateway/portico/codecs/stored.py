"""What lies in Redis: answers that are kept, and errors that those who wait for an answer are told.

An answer is a head (format, checksum, when it was stored, for how long, its tag) and an Open Inference
`ModelInferResponse`.
"""

import struct
from base64 import b64decode, b64encode
from typing import Any
from zlib import crc32

import orjson
from google.protobuf.message import DecodeError

from portico import errors
from portico.errors import HandlerAnswer, PorticoError
from portico.freshness import TAG_BYTES, Entry, Stamp
from portico.inference import InferenceResponse, Tensor
from portico.wire import open_inference_pb2 as oip

FORMAT = b"\x02"
"""Another release that writes another form takes another number, and reads this one as a miss."""

_HEAD = struct.Struct(f"<c4sdd{TAG_BYTES}s")
"""Format, CRC-32 of all that follows it, seconds since the epoch, seconds, tag. The checksum is there since a protobuf
message that breaks off may still be one."""
_CHECKED = 5
_CONTENT_TYPE = "content_type"

_SHARED = {
    kind.__name__: kind
    for kind in (
        errors.InvalidRequest,
        errors.Overloaded,
        errors.Unavailable,
        errors.ModelNotReady,
        errors.ServableLost,
        errors.DeadlineExceeded,
        errors.InferenceFailed,
    )
}
"""Errors that a model's call ends in, and that are nothing but their message."""
LONGEST_ERROR = 64 << 10
"""Bytes of an error that is told to others, with the body that a handler may have answered in its place."""


def dump(entry: Entry) -> bytes:
    """The bytes to keep."""
    message = oip.ModelInferResponse()
    for output in entry.response.outputs:
        message.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        message.raw_output_contents.append(output.data)
    if content_type := entry.response.content_type:
        message.parameters[_CONTENT_TYPE].string_param = content_type
    body = message.SerializeToString()
    stamp = entry.stamp
    head = _HEAD.pack(FORMAT, bytes(4), stamp.stored_at, stamp.lifetime, stamp.tag)[_CHECKED:]
    return FORMAT + crc32(body, crc32(head)).to_bytes(4, "little") + head + body


def load(stored: bytes) -> Entry | None:
    """The entry, or None for bytes that are not one of this format."""
    if len(stored) < _HEAD.size:
        return None
    form, checksum, stored_at, lifetime, tag = _HEAD.unpack_from(stored)
    if form != FORMAT or checksum != crc32(memoryview(stored)[_CHECKED:]).to_bytes(4, "little"):
        return None
    try:
        message = oip.ModelInferResponse.FromString(stored[_HEAD.size :])
    except DecodeError:
        return None
    outputs, contents = message.outputs, message.raw_output_contents
    if len(outputs) != len(contents):
        return None
    pairs = zip(outputs, contents, strict=True)
    tensors = tuple([Tensor(output.name, output.datatype, tuple(output.shape), data) for output, data in pairs])
    content_type = message.parameters[_CONTENT_TYPE].string_param if message.parameters else ""
    response = InferenceResponse(tensors, content_type)
    return Entry(response, Stamp(stored_at, lifetime, tag))


def dump_error(error: PorticoError) -> bytes | None:
    """The bytes that tell of an error, None for one that others had better run into themselves."""
    if type(error) not in _SHARED.values():
        return None
    said = error.answer
    told: dict[str, Any] = {"error": type(error).__name__, "message": str(error)}
    if said is not None:
        body = b64encode(said.body).decode() if said.body is not None else None
        told |= {"answer": [said.status, said.content_type, body]}
    dumped = orjson.dumps(told)
    return dumped if len(dumped) <= LONGEST_ERROR else None


def load_error(stored: bytes) -> PorticoError | None:
    """The error, or None for bytes that tell of none."""
    try:
        told = orjson.loads(stored)
        error: PorticoError = _SHARED[told["error"]](told["message"])
        if "answer" in told:
            status, content_type, body = told["answer"]
            error.answer = HandlerAnswer(status, content_type, None if body is None else b64decode(body))
    except (ValueError, KeyError, TypeError):
        return None
    return error
