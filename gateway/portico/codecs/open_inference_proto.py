"""The Open Inference Protocol's messages ↔ requests and tensors. Used by its gRPC protocol.

Source: the Open Inference Protocol's `specification/protocol/open_inference_grpc.proto`.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import numpy as np

from portico.codecs import open_inference_parameters as parameters
from portico.codecs import protobuf_wire
from portico.codecs.json_values import NUMPY
from portico.codecs.open_inference_parameters import CONTENT_TYPE, SIGNATURE, Parameters
from portico.errors import InvalidRequest
from portico.inference import InferenceRequest, Tensor, check_count, element_count, pack_bytes, unpack_bytes
from portico.wire import open_inference_pb2 as oip

_FIELD: Mapping[str, str] = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Datatype → the field of InferTensorContents that holds its values. The 16-bit floats have none."""

_SHARED: Mapping[str, str] = {"int_contents": "<i4", "uint_contents": "<u4"}
"""Fields that hold values of smaller types too, and what their own is."""

_SAME_BYTES = {
    name: oip.InferTensorContents.DESCRIPTOR.fields_by_name[_FIELD[name]].number for name in ("BOOL", "FP32", "FP64")
}
"""Datatypes whose packed field holds the very bytes of the tensor, and that field's number."""

_RAW_OUTPUTS = oip.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER
_RAW_ONLY = frozenset({"FP16", "BF16"})


def parse_request(message: bytes) -> tuple[oip.ModelInferRequest, list[bytes]]:
    """(a serialized request, its raw contents); large ones are not in the request any more. Raises DecodeError."""
    if len(message) >= protobuf_wire.LARGE:
        with suppress(InvalidRequest):
            head, raw = protobuf_wire.split(message, oip.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER)
            return oip.ModelInferRequest.FromString(head), list(map(bytes, raw))
    request = oip.ModelInferRequest.FromString(message)
    return request, list(request.raw_input_contents)


def decode_request(request: oip.ModelInferRequest, signed: bool, raw: Sequence[bytes] = ()) -> InferenceRequest:
    """The request of a message, and of `raw` contents that were taken out of it; `signed` is whether the model declares
    signatures. Raises InvalidRequest.
    """
    for what in ("inputs", "outputs"):
        check_count(len(getattr(request, what)), what)
    asked = _parameters(request.parameters, "")
    parameters.refuse_sequences(asked)
    return InferenceRequest(
        inputs=_inputs(request, raw or request.raw_input_contents),
        outputs=_outputs(request),
        signature=asked.get(SIGNATURE, ""),
        content_type="" if signed else asked.get(CONTENT_TYPE, ""),
        id=request.id,
    )


def is_raw(request: oip.ModelInferRequest) -> bool:
    """Whether the inputs came as raw bytes; so do the outputs, then."""
    return bool(request.raw_input_contents)


def _inputs(request: oip.ModelInferRequest, raw: Sequence[bytes]) -> tuple[Tensor, ...]:
    inputs = tuple(request.inputs)
    for entry in inputs:
        if given := entry.parameters:
            where = f"Input '{entry.name}': "
            parameters.refuse_shared_memory(_parameters(given, where), where)
    if not raw:
        return tuple([_typed(entry) for entry in inputs])
    if len(raw) != len(inputs):
        raise InvalidRequest(
            f"raw_input_contents has {len(raw)} entries for {len(inputs)} inputs: give one for each, in their order."
        )
    for entry in inputs:
        if entry.HasField("contents"):
            raise InvalidRequest(
                f"Input '{entry.name}' has contents in a request with raw_input_contents: give all inputs in one way."
            )
    pairs = zip(inputs, raw, strict=True)
    return tuple([Tensor(entry.name, entry.datatype, tuple(entry.shape), data).check() for entry, data in pairs])


def _typed(entry: oip.ModelInferRequest.InferInputTensor) -> Tensor:
    name, datatype, shape = entry.name, entry.datatype, tuple(entry.shape)
    count = element_count(name, shape)
    if datatype in _RAW_ONLY:
        raise InvalidRequest(f"Input '{name}': {datatype} has no typed contents; send it in raw_input_contents.")
    field = _FIELD.get(datatype)
    if field is None:
        known = ", ".join((*_FIELD, *sorted(_RAW_ONLY)))
        raise InvalidRequest(f"Input '{name}': datatype '{datatype}' is none of {known}.")
    for other, _ in entry.contents.ListFields():
        if other.name != field:
            raise InvalidRequest(f"Input '{name}': {datatype} goes into {field}, not into {other.name}.")
    values = getattr(entry.contents, field)
    if len(values) != count:
        raise InvalidRequest(
            f"Input '{name}': shape {list(shape)} holds {count} elements, its contents hold {len(values)}."
        )
    if datatype == "BYTES":
        return Tensor(name, datatype, shape, pack_bytes(values))
    numbers = np.array(values, _SHARED.get(field, NUMPY[datatype]))
    narrowed = numbers.astype(NUMPY[datatype], copy=False)
    if field in _SHARED and (narrowed != numbers).any():
        raise InvalidRequest(f"Input '{name}': a value does not fit {datatype}.")
    return Tensor(name, datatype, shape, narrowed.tobytes())


def _outputs(request: oip.ModelInferRequest) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for output in request.outputs:
        where = f"Output '{output.name}': "
        if output.name in names:
            raise InvalidRequest(f"{where}it is asked for twice.")
        asked = _parameters(output.parameters, where)
        parameters.refuse_classification(asked, where)
        parameters.refuse_shared_memory(asked, where)
        names[output.name] = None
    return tuple(names)


def _parameters(values: Mapping[str, oip.InferParameter], where: str) -> Parameters:
    """Those that have a value."""
    if not values:
        return {}
    check_count(len(values), "parameters")
    given = {name: value.WhichOneof("parameter_choice") for name, value in values.items()}
    return parameters.checked({name: getattr(values[name], kind) for name, kind in given.items() if kind}, where)


def encode_response(
    model: str, version: str, request_id: str, tensors: Iterable[Tensor], raw: bool
) -> oip.ModelInferResponse:
    """The message of an answer. Its values are raw bytes if `raw`, or if an output has no typed contents (FP16, BF16):
    the protocol has one way for all outputs of a response.
    """
    tensors = tuple(tensors)
    raw = raw or any(tensor.datatype in _RAW_ONLY for tensor in tensors)
    response = oip.ModelInferResponse(model_name=model, model_version=version, id=request_id)
    for tensor in tensors:
        output = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if raw:
            response.raw_output_contents.append(tensor.data)
        else:
            _fill(output.contents, tensor)
    return response


def serialize_response(
    model: str, version: str, request_id: str, tensors: Iterable[Tensor], raw: bool
) -> tuple[bytes, ...]:
    """The parts of the serialized message of `encode_response`; raw values are not copied for it."""
    tensors = tuple(tensors)
    if not raw:
        return (encode_response(model, version, request_id, tensors, raw).SerializeToString(),)
    response = oip.ModelInferResponse(model_name=model, model_version=version, id=request_id)
    for tensor in tensors:
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    pieces = [response.SerializeToString()]
    for tensor in tensors:
        pieces += protobuf_wire.prefix(_RAW_OUTPUTS, len(tensor.data)), tensor.data
    return tuple(pieces)


def _fill(contents: oip.InferTensorContents, tensor: Tensor) -> None:
    contents.SetInParent()
    if tensor.datatype == "BYTES":
        contents.bytes_contents.extend(unpack_bytes(tensor.data, tensor.name))
    elif tensor.datatype in _SAME_BYTES:
        contents.MergeFromString(protobuf_wire.field(_SAME_BYTES[tensor.datatype], tensor.data))
    else:
        values = np.frombuffer(tensor.data, NUMPY[tensor.datatype])
        protobuf_wire.extend(getattr(contents, _FIELD[tensor.datatype]), values)
