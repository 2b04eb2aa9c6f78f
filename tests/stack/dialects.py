"""Every dialect of the door as a function from a tensor to a tensor, written with none of the code under test: numpy,
JSON, the published messages.

A dialect returns the model's output, or `Refused` with the text of the error. It may raise `CannotSay` where the
dialect itself has no form for the tensor, so that there is nothing to send.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from door import Door

from portico.wire import open_inference_pb2 as oip
from portico.wire import tensorflow_pb2 as tf
from portico.wire import tf_serving_pb2 as tfs
from portico.wire import torchserve_pb2 as ts

TORCH = "matrix-torch"
"""The model of TorchServe among those that are asked."""

NUMPY = {
    "BOOL": "?",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
"""BF16 has no type of numpy's: its values are kept as FP32 that it can hold. BYTES are kept as lists."""

TF_DTYPE = {
    "BOOL": tf.DT_BOOL,
    "UINT8": tf.DT_UINT8,
    "UINT16": tf.DT_UINT16,
    "UINT32": tf.DT_UINT32,
    "UINT64": tf.DT_UINT64,
    "INT8": tf.DT_INT8,
    "INT16": tf.DT_INT16,
    "INT32": tf.DT_INT32,
    "INT64": tf.DT_INT64,
    "FP16": tf.DT_HALF,
    "BF16": tf.DT_BFLOAT16,
    "FP32": tf.DT_FLOAT,
    "FP64": tf.DT_DOUBLE,
    "BYTES": tf.DT_STRING,
}
CONTENTS = {
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


@dataclass(frozen=True)
class Tensor:
    """`values` are flat and row-major: Python's numbers, booleans, or bytes."""

    datatype: str
    shape: tuple[int, ...]
    values: list[Any]

    @property
    def raw(self) -> bytes:
        """As the binary forms have it."""
        if self.datatype == "BYTES":
            return b"".join(len(value).to_bytes(4, "little") + value for value in self.values)
        if self.datatype == "BF16":
            return (np.array(self.values, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
        return np.array(self.values, NUMPY[self.datatype]).tobytes()

    @classmethod
    def of_raw(cls, datatype: str, shape: tuple[int, ...], raw: bytes) -> "Tensor":
        """What binary forms hold."""
        if datatype == "BYTES":
            values: list[Any] = []
            while raw:
                size = int.from_bytes(raw[:4], "little")
                values.append(raw[4 : 4 + size])
                raw = raw[4 + size :]
            return cls(datatype, shape, values)
        if datatype == "BF16":
            return cls(datatype, shape, (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").tolist())
        return cls(datatype, shape, np.frombuffer(raw, NUMPY[datatype]).tolist())

    def nested(self, encode: Callable[[Any], Any] = lambda value: value) -> Any:
        """The values as lists in lists. Raises CannotSay for a shape that nesting does not show."""
        if 0 in self.shape[:-1]:
            raise CannotSay
        values = iter([encode(value) for value in self.values])

        def level(shape: tuple[int, ...]) -> Any:
            return [level(shape[1:]) for _ in range(shape[0])] if shape else next(values)

        return level(self.shape)


@dataclass(frozen=True)
class Refused:
    """The door answered with an error: its code (an HTTP status, or gRPC's name) and its text."""

    code: int | str
    text: str


class CannotSay(Exception):
    """The dialect has no form for this tensor."""


Outcome = Tensor | Refused
Dialect = Callable[[Door, str, Tensor], Outcome]
"""(the door, the model, its input) → its output. A model with signatures is asked by the one of its datatype."""


def signature(model: str, tensor: Tensor) -> str:
    """The name of the signature; a TorchServe model has none to name."""
    return "" if model == TORCH else tensor.datatype


def json_value(value: Any) -> Any:
    """BYTES as base64, since they may be no text."""
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def of_json(datatype: str, value: Any) -> Tensor:
    """What nested lists hold; texts as bytes."""
    shape: list[int] = []
    flat = [value]
    while flat and all(isinstance(entry, list) for entry in flat):
        shape.append(len(flat[0]))
        flat = [inner for entry in flat for inner in entry]
    decoded = [entry.encode() if isinstance(entry, str) and datatype == "BYTES" else entry for entry in flat]
    return Tensor(datatype, tuple(shape), [_from_b64(entry) for entry in decoded])


def _from_b64(value: Any) -> Any:
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value


def _rest(answer: Any) -> Refused | None:
    if answer.status == 200:
        return None
    body = answer.json
    return Refused(answer.status, body.get("error") or body["message"])


def v2_json(door: Door, model: str, tensor: Tensor) -> Outcome:
    """Open Inference over REST, JSON both ways."""
    entry = {"name": "x", "datatype": tensor.datatype, "shape": list(tensor.shape)}
    inputs = [{**entry, "data": [json_value(value) for value in tensor.values]}]
    body = {"inputs": inputs, "parameters": {"signature_name": signature(model, tensor)}}
    answer = door.post(f"/v2/models/{model}/infer", body)
    if refused := _rest(answer):
        return refused
    (output,) = answer.json["outputs"]
    values = [value.encode() if isinstance(value, str) else value for value in output["data"]]
    if output["datatype"] != "BYTES":
        values = output["data"]
    return Tensor(output["datatype"], tuple(output["shape"]), values)


def v2_binary(door: Door, model: str, tensor: Tensor) -> Outcome:
    """Open Inference over REST with the binary tensor extension, both ways."""
    raw = tensor.raw
    entry: dict[str, Any] = {"name": "x", "datatype": tensor.datatype, "shape": list(tensor.shape)}
    entry["parameters"] = {"binary_data_size": len(raw)}
    parameters = {"signature_name": signature(model, tensor), "binary_data_output": True}
    head = json.dumps({"inputs": [entry], "parameters": parameters}).encode()
    answer = door.post(f"/v2/models/{model}/infer", head + raw, inference_header_content_length=str(len(head)))
    if refused := _rest(answer):
        return refused
    size = int(answer.headers["inference-header-content-length"])
    (output,) = json.loads(answer.body[:size])["outputs"]
    assert output["parameters"]["binary_data_size"] == len(answer.body) - size
    return Tensor.of_raw(output["datatype"], tuple(output["shape"]), answer.body[size:])


def tf_columns(door: Door, model: str, tensor: Tensor) -> Outcome:
    """TF Serving's REST, column form."""
    body = {"signature_name": signature(model, tensor), "inputs": tensor.nested(json_value)}
    answer = door.post(f"/v1/models/{model}:predict", body)
    return _rest(answer) or of_json(tensor.datatype, answer.json["outputs"])


def rows(door: Door, model: str, tensor: Tensor) -> Outcome:
    """TF Serving's REST, row form, which is KServe's V1 protocol."""
    if not tensor.shape:
        raise CannotSay
    body = {"signature_name": signature(model, tensor), "instances": tensor.nested(json_value)}
    answer = door.post(f"/v1/models/{model}:predict", body)
    return _rest(answer) or of_json(tensor.datatype, answer.json["predictions"])


def torch_rest(door: Door, model: str, tensor: Tensor) -> Outcome:
    """TorchServe's REST with a body of JSON; the answer's datatype is the one that was sent, as JSON tells none."""
    if tensor.datatype == "BYTES":
        if tensor.shape not in ((), (1,)):
            raise CannotSay
        answer = door.post(f"/predictions/{model}", tensor.values[0], content_type="application/octet-stream")
        return _rest(answer) or Tensor("BYTES", (1,), [answer.body])
    answer = door.post(f"/predictions/{model}", tensor.nested(), content_type="application/json")
    return _rest(answer) or of_json(tensor.datatype, answer.json)


def tensor_proto(tensor: Tensor) -> tf.TensorProto:
    """With its content packed, as TensorFlow's clients send it."""
    shape = tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=size) for size in tensor.shape])
    proto = tf.TensorProto(dtype=TF_DTYPE[tensor.datatype], tensor_shape=shape)  # type: ignore[arg-type]
    if tensor.datatype == "BYTES":
        proto.string_val.extend(tensor.values)
    else:
        proto.tensor_content = tensor.raw
    return proto


def of_tensor_proto(proto: tf.TensorProto) -> Tensor:
    """Typed fields or packed content."""
    datatype = next(name for name, dtype in TF_DTYPE.items() if dtype == proto.dtype)
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if datatype == "BYTES":
        return Tensor(datatype, shape, list(proto.string_val))
    if proto.tensor_content:
        return Tensor.of_raw(datatype, shape, proto.tensor_content)
    if datatype in ("FP16", "BF16"):
        return Tensor.of_raw(datatype, shape, np.array(proto.half_val, "<u2").tobytes())
    fields = ("bool_val", "int_val", "uint32_val", "uint64_val", "int64_val", "float_val", "double_val")
    values = next((list(getattr(proto, field)) for field in fields if len(getattr(proto, field))), [])
    return Tensor(datatype, shape, values)


def _call(address: str, path: str, request: Any, kind: Any) -> Any:
    with grpc.insecure_channel(address) as channel:
        method = channel.unary_unary(
            path, request_serializer=type(request).SerializeToString, response_deserializer=kind.FromString
        )
        try:
            return method(request, timeout=30)
        except grpc.RpcError as error:
            return Refused(error.code().name, error.details() or "")


def tf_grpc(door: Door, model: str, tensor: Tensor) -> Outcome:
    """TF Serving's gRPC `Predict`."""
    return tf_predict(door.address, model, tensor)


def tf_predict(address: str, model: str, tensor: Tensor) -> Outcome:
    """The same at any address: also at the model server's own."""
    request = tfs.PredictRequest(model_spec=tfs.ModelSpec(name=model, signature_name=signature(model, tensor)))
    request.inputs["x"].CopyFrom(tensor_proto(tensor))
    answer = _call(address, "/tensorflow.serving.PredictionService/Predict", request, tfs.PredictResponse)
    if isinstance(answer, Refused):
        return answer
    (output,) = answer.outputs.values()
    return of_tensor_proto(output)


def _infer(door: Door, model: str, tensor: Tensor, *, raw: bool) -> Outcome:
    entry = oip.ModelInferRequest.InferInputTensor(name="x", datatype=tensor.datatype, shape=tensor.shape)
    request = oip.ModelInferRequest(model_name=model, inputs=[entry])
    request.parameters["signature_name"].string_param = signature(model, tensor)
    if raw:
        request.raw_input_contents.append(tensor.raw)
    else:
        if tensor.datatype not in CONTENTS:
            raise CannotSay
        getattr(request.inputs[0].contents, CONTENTS[tensor.datatype]).extend(tensor.values)
    answer = _call(door.address, "/inference.GRPCInferenceService/ModelInfer", request, oip.ModelInferResponse)
    if isinstance(answer, Refused):
        return answer
    (output,) = answer.outputs
    shape = tuple(output.shape)
    if answer.raw_output_contents:
        return Tensor.of_raw(output.datatype, shape, answer.raw_output_contents[0])
    return Tensor(output.datatype, shape, list(getattr(output.contents, CONTENTS[output.datatype])))


def v2_grpc_raw(door: Door, model: str, tensor: Tensor) -> Outcome:
    """Open Inference over gRPC with raw contents."""
    return _infer(door, model, tensor, raw=True)


def v2_grpc_typed(door: Door, model: str, tensor: Tensor) -> Outcome:
    """Open Inference over gRPC with typed contents."""
    return _infer(door, model, tensor, raw=False)


def torch_grpc(door: Door, model: str, tensor: Tensor) -> Outcome:
    """TorchServe's gRPC `Predictions` with the one part `body`, of JSON."""
    if tensor.datatype == "BYTES":
        if tensor.shape not in ((), (1,)):
            raise CannotSay
        body = tensor.values[0]
    else:
        body = json.dumps(tensor.nested()).encode()
    request = ts.PredictionsRequest(model_name=model, input={"body": body})
    path = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
    answer = _call(door.address, path, request, ts.PredictionResponse)
    if isinstance(answer, Refused):
        return answer
    if tensor.datatype == "BYTES":
        return Tensor("BYTES", (1,), [answer.prediction])
    return of_json(tensor.datatype, json.loads(answer.prediction))


DIALECTS: dict[str, Dialect] = {
    dialect.__name__: dialect
    for dialect in (
        v2_json,
        v2_binary,
        v2_grpc_raw,
        v2_grpc_typed,
        tf_grpc,
        tf_columns,
        rows,
        torch_rest,
        torch_grpc,
    )
}
OF_TORCHSERVE = ("torch_rest", "torch_grpc")
"""Dialects that have no tensors."""
