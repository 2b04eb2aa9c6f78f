"""What is asked of a model and what it answers, in one neutral form. Protocols decode into it, backends encode
from it; it knows neither.

Datatypes are the Open Inference Protocol's names (V2, section "Tensor Data Types"): BOOL, UINT8 … UINT64,
INT8 … INT64, FP16, BF16, FP32, FP64, BYTES.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from functools import cached_property
from math import prod
from types import MappingProxyType

from portico.errors import InvalidRequest

ITEM_SIZE: Mapping[str, int] = MappingProxyType(
    {
        "BOOL": 1,
        "UINT8": 1,
        "UINT16": 2,
        "UINT32": 4,
        "UINT64": 8,
        "INT8": 1,
        "INT16": 2,
        "INT32": 4,
        "INT64": 8,
        "FP16": 2,
        "BF16": 2,
        "FP32": 4,
        "FP64": 8,
    }
)
"""Bytes of one element. BYTES is absent: its elements have no fixed size."""

MAX_RANK = 64
"""Dimensions of a tensor; numpy and TensorFlow know no more."""

MAX_TENSORS = 1 << 14
"""Inputs of a request, its outputs, or its parameters; each takes far more time and memory than its bytes."""


PLAIN = 200
"""Status of an answer of which there is nothing to tell but its outputs."""


class Form(StrEnum):
    """How the inputs of a request are meant."""

    TENSORS = "tensors"
    BODY = "body"
    """One BYTES element: the body of an HTTP request, with its content type."""
    PARTS = "parts"
    """One BYTES element each: named parts without content types, as TorchServe's gRPC and plain forms give them."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named, dense, row-major tensor.

    `data` is little-endian and contiguous, `prod(shape) * ITEM_SIZE[datatype]` bytes long. A BYTES tensor holds each
    element as a 4-byte little-endian length followed by that many bytes, as `raw_input_contents` of the Open Inference
    Protocol does.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes

    def check(self) -> "Tensor":
        """Returns itself if datatype, shape and data agree. Raises InvalidRequest that says which do not."""
        count = element_count(self.name, self.shape)
        if self.datatype == "BYTES":
            found = sum(1 for _ in unpack_bytes(self.data, self.name))
            if found != count:
                raise InvalidRequest(
                    f"Input '{self.name}': shape {list(self.shape)} holds {count} elements, the data {found}."
                )
            return self
        size = ITEM_SIZE.get(self.datatype)
        if size is None:
            raise InvalidRequest(
                f"Input '{self.name}': datatype '{self.datatype}' is none of {', '.join(ITEM_SIZE)}, BYTES."
            )
        if len(self.data) != count * size:
            raise InvalidRequest(
                f"Input '{self.name}': {self.datatype} of shape {list(self.shape)} takes {count * size} bytes, "
                f"{len(self.data)} were given."
            )
        if self.datatype == "BOOL" and self.data.translate(None, b"\0\1"):
            raise InvalidRequest(f"Input '{self.name}': a BOOL is one byte, 0 or 1, and its data holds others.")
        return self


class UnreadTensor(Tensor):
    """A tensor whose `data` is read from the message it came in when somebody asks for it."""

    _read: Callable[[], bytes]

    def __init__(self, name: str, datatype: str, shape: tuple[int, ...], read: Callable[[], bytes]) -> None:
        """`read` may raise InvalidRequest, which asking for `data` then does."""
        for field, value in (("name", name), ("datatype", datatype), ("shape", shape), ("_read", read)):
            object.__setattr__(self, field, value)

    @cached_property
    def data(self) -> bytes:
        return self._read()


def check_count(count: int, what: str) -> None:
    """Raises InvalidRequest for more than `MAX_TENSORS`."""
    if count > MAX_TENSORS:
        raise InvalidRequest(f"The request has {count} {what}, and may have up to {MAX_TENSORS}.")


def element_count(name: str, shape: tuple[int, ...]) -> int:
    """How many elements a tensor of this shape has.

    Raises InvalidRequest, before it multiplies, for more than `MAX_RANK` dimensions or a size that is none.
    """
    if len(shape) > MAX_RANK:
        raise InvalidRequest(f"Input '{name}': a shape has up to {MAX_RANK} dimensions, not {len(shape)}.")
    for size in shape:
        if not 0 <= size < 1 << 63:
            raise InvalidRequest(f"Input '{name}': shape {list(shape)} has a size below 0 or above 2^63 - 1.")
    return prod(shape)


def pack_bytes(elements: Iterable[bytes]) -> bytes:
    """The `data` of a BYTES tensor with these elements."""
    parts: list[bytes] = []
    for element in elements:
        parts.append(len(element).to_bytes(4, "little"))
        parts.append(element)
    return b"".join(parts)


def unpack_bytes(data: bytes, name: str = "") -> Iterator[bytes]:
    """The elements of a BYTES tensor's `data`. Raises InvalidRequest where a length runs over the end."""
    position, end = 0, len(data)
    while position < end:
        start = position + 4
        position = start + int.from_bytes(data[position:start], "little")
        if start > end or position > end:
            raise InvalidRequest(f"Input '{name}': a BYTES element runs over the end of its data.")
        yield data[start:position]


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One call of a model. Which version it goes to is the route's business, not the request's.

    `outputs` names the wanted outputs, empty for all. `signature` is TF Serving's signature name, empty for the
    model's default. `content_type` is that of a `BODY`, `url_path` what a TorchServe handler is told of the URL that it
    came to. With `explain` the model's explanation is asked for and not its prediction. `id` is the client's, and comes
    back with the answer. `native` is the same request as a message of TF Serving's own, if it came as one: that goes to
    TF Serving as it is.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...] = ()
    signature: str = ""
    form: Form = Form.TENSORS
    content_type: str = ""
    url_path: str = ""
    explain: bool = False
    id: str = ""
    native: bytes = b""


@dataclass(frozen=True, slots=True)
class InferenceResponse:
    """What the model answered. `content_type` is that of a body (see `codecs.handler`), empty where there is none.

    A `partial` one is a piece of an answer that a handler sends bit by bit. `native` is the same answer as a message
    of TF Serving's own, if it was given to a request with one. `status` is the HTTP status of success that a handler
    chose. `joined` is an answer whose pieces were put together on the way.
    """

    outputs: tuple[Tensor, ...]
    content_type: str = ""
    partial: bool = False
    native: bytes = b""
    status: int = PLAIN
    joined: bool = False

    @property
    def may_be_kept(self) -> bool:
        """Whether it is one that the same question is always worth: not one that comes in pieces, nor one whose status
        says more than that there is an answer.
        """
        return not self.partial and not self.joined and self.status == PLAIN

    @property
    def size(self) -> int:
        """Bytes that it takes, without reading what is not read yet."""
        return len(self.native) or sum(len(output.data) for output in self.outputs)


class NativeResponse(InferenceResponse):
    """An answer whose tensors are read from its `native` message when somebody asks for them."""

    _read: Callable[[bytes], tuple[Tensor, ...]]

    def __init__(self, native: bytes, read: Callable[[bytes], tuple[Tensor, ...]]) -> None:
        """`read` may raise InferenceFailed, which asking for `outputs` then does."""
        for name, value in (_DEFAULTS | {"native": native, "_read": read}).items():
            object.__setattr__(self, name, value)

    @cached_property
    def outputs(self) -> tuple[Tensor, ...]:
        return self._read(self.native)


_DEFAULTS = {field.name: field.default for field in fields(InferenceResponse) if field.default is not MISSING}
