"""What is asked of a model and what it answers, in one neutral form. Protocols decode into it, backends encode
from it; it knows neither.

Datatypes are the Open Inference Protocol's names (V2, section "Tensor Data Types"): BOOL, UINT8 … UINT64,
INT8 … INT64, FP16, BF16, FP32, FP64, BYTES.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
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

Parameter = bool | int | float | str


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
        if not all(0 <= size < 1 << 63 for size in self.shape):
            raise InvalidRequest(f"Input '{self.name}': shape {list(self.shape)} has a size below 0 or above 2^63 - 1.")
        count = prod(self.shape)
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
        return self


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
    model's default. `parameters` reach the model server, and so are part of the cache key; `id` is not.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...] = ()
    signature: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=lambda: MappingProxyType({}))
    id: str = ""


@dataclass(frozen=True, slots=True)
class InferenceResponse:
    """What the model answered: its outputs, and parameters that describe them (a content type, say)."""

    outputs: tuple[Tensor, ...]
    parameters: Mapping[str, Parameter] = field(default_factory=lambda: MappingProxyType({}))

    def tensor(self, name: str) -> Tensor:
        """The output of this name. Raises KeyError."""
        for output in self.outputs:
            if output.name == name:
                return output
        raise KeyError(name)
