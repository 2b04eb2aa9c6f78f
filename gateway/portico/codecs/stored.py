"""An answer as it is kept in the cache: format version, checksum, an Open Inference `ModelInferResponse`."""

from zlib import crc32

from google.protobuf.message import DecodeError

from portico.inference import InferenceResponse, Tensor
from portico.wire import open_inference_pb2 as oip

FORMAT = b"\x01"
"""Another release that writes another form takes another number, and reads this one as a miss."""

_CONTENT_TYPE = "content_type"

CHECKSUM = 4
"""Bytes of CRC-32, little-endian: a protobuf message that breaks off may still be one."""


def dump(response: InferenceResponse) -> bytes:
    """The bytes to keep."""
    message = oip.ModelInferResponse()
    for output in response.outputs:
        message.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        message.raw_output_contents.append(output.data)
    message.parameters[_CONTENT_TYPE].string_param = response.content_type
    body = message.SerializeToString()
    return FORMAT + crc32(body).to_bytes(CHECKSUM, "little") + body


def load(stored: bytes) -> InferenceResponse | None:
    """The answer, or None for bytes that are not one of this format."""
    start = len(FORMAT) + CHECKSUM
    body = stored[start:]
    if stored[:start] != FORMAT + crc32(body).to_bytes(CHECKSUM, "little"):
        return None
    try:
        message = oip.ModelInferResponse.FromString(body)
    except DecodeError:
        return None
    if len(message.outputs) != len(message.raw_output_contents):
        return None
    outputs = tuple(
        Tensor(output.name, output.datatype, tuple(output.shape), data)
        for output, data in zip(message.outputs, message.raw_output_contents, strict=True)
    )
    return InferenceResponse(outputs, message.parameters[_CONTENT_TYPE].string_param)
