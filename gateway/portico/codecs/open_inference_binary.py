"""Tensors as bytes behind the JSON of an Open Inference body: what is read there, and which outputs are to be written
so. Used by the protocol's REST side.

Source: Triton's docs/protocol/extension_binary_data.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from portico.codecs.open_inference_parameters import BINARY, BINARY_OUTPUT, Parameters
from portico.errors import InvalidRequest
from portico.inference import ITEM_SIZE, Tensor, pack_bytes
from portico.routing import Signature, TensorSpec

HEADER = "Inference-Header-Content-Length"
"""The header that says how many bytes of JSON there are."""

_LONGEST_NUMBER = 18


class BinaryData:
    """The bytes behind the JSON, taken by one tensor after the other."""

    def __init__(self, data: bytes | memoryview = b"") -> None:
        self._data = data
        self._taken = 0

    def take(self, name: str, size: int) -> bytes:
        """The next `size` bytes, for input `name`. Raises InvalidRequest if there are fewer."""
        left = len(self._data) - self._taken
        if size > left:
            raise InvalidRequest(
                f"Input '{name}': its binary_data_size is {size}, and {left} bytes are left of those behind the JSON, "
                f"which ends where the header {HEADER} says."
            )
        self._taken += size
        return bytes(self._data[self._taken - size : self._taken])

    def finish(self) -> None:
        """Raises InvalidRequest if anything is left."""
        left = len(self._data) - self._taken
        if left:
            raise InvalidRequest(
                f"{left} bytes behind the JSON belong to no input: the inputs' binary_data_size do not add up to the "
                f"{len(self._data)} bytes behind the {HEADER}."
            )


def split(body: bytes, header: str) -> tuple[bytes, BinaryData]:
    """(JSON, what follows it), where `header` is the value of `HEADER`, empty for none. Raises InvalidRequest."""
    if not header:
        return body, BinaryData()
    if not (header.isascii() and header.isdecimal() and len(header) <= _LONGEST_NUMBER):
        raise InvalidRequest(f"The header {HEADER} has to be a number of bytes, not '{header[:40]}'.")
    length = int(header)
    if length > len(body):
        raise InvalidRequest(f"The header {HEADER} says {length} bytes of JSON, the body has {len(body)} bytes.")
    return body[:length], BinaryData(memoryview(body)[length:])


@dataclass(frozen=True, slots=True)
class BinaryOutputs:
    """Which outputs are to be written as bytes: those that say so themselves, the others by `default`."""

    default: bool = False
    named: Mapping[str, bool] = field(default_factory=dict)

    @classmethod
    def asked_for(cls, request: Parameters, outputs: Mapping[str, Parameters]) -> "BinaryOutputs":
        """Of the request's parameters and those of its outputs, by name."""
        named = {name: parameters[BINARY] for name, parameters in outputs.items() if BINARY in parameters}
        return cls(request.get(BINARY_OUTPUT, False), named)

    def holds(self, name: str) -> bool:
        """Whether output `name` is one of them."""
        return self.named.get(name, self.default)


def lone_input(model: str, signature: Signature | None, body: bytes) -> Tensor:
    """The one input of a body without any JSON (the extension's "Raw Binary Request").

    Its shape is the model's, with the one open size that the length of the body gives; BYTES is one element, [1], as
    is what a model without a signature takes. Raises InvalidRequest where that leaves any choice.
    """
    if signature is None:
        return Tensor("body", "BYTES", (1,), pack_bytes([body]))
    if len(signature.inputs) != 1:
        raise InvalidRequest(
            f"{HEADER} is 0, so the whole body is the one input; model '{model}' has {len(signature.inputs)}."
        )
    (spec,) = signature.inputs
    if spec.datatype == "BYTES":
        return Tensor(spec.name, "BYTES", (1,), pack_bytes([body]))
    return Tensor(spec.name, spec.datatype, _shape(spec, len(body)), body).check()


def _shape(spec: TensorSpec, length: int) -> tuple[int, ...]:
    if spec.shape is None or spec.shape.count(-1) > 1:
        raise InvalidRequest(
            f"{HEADER} is 0, and the shape of input '{spec.name}' does not follow from the length of the body: "
            f"the model takes {'any shape' if spec.shape is None else list(spec.shape)}."
        )
    row = ITEM_SIZE.get(spec.datatype, 1) * prod(size for size in spec.shape if size >= 0)
    return tuple(size if size >= 0 else length // max(row, 1) for size in spec.shape)
