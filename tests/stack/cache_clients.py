"""Every protocol in which tensors can be asked of a model of make_pair.py, and what is said of the cache."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from door import Answer, Door

from portico.wire import open_inference_pb2 as oip
from portico.wire import tensorflow_pb2 as tf
from portico.wire import tf_serving_pb2 as tfs

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
PREDICT = "/tensorflow.serving.PredictionService/Predict"


@dataclass(frozen=True)
class Asked:
    """The output `total`, and what came beside it: headers or initial metadata."""

    total: list[float]
    headers: dict[str, str]

    @property
    def x_cache(self) -> str:
        return self.headers["x-cache"]


Client = Callable[[Door, str, list[float], list[float]], Asked]
"""(the door, the model, its inputs) → its answer."""


def _of_json(answer: Answer) -> Asked:
    assert answer.status == 200, answer
    (total,) = (output["data"] for output in answer.json["outputs"] if output["name"] == "total")
    return Asked(total, answer.headers)


def _inputs(a: list[float], b: list[float]) -> list[dict[str, Any]]:
    return [{"name": name, "datatype": "FP32", "shape": [len(data)]} for name, data in (("a", a), ("b", b))]


def rpc(door: Door, path: str, request: Any, kind: Any, metadata: Any = (), timeout: float = 30) -> Any:
    """(the answer, its initial metadata)."""
    with grpc.insecure_channel(door.address) as channel:
        method = channel.unary_unary(path)
        answer, call = method.with_call(request.SerializeToString(), timeout=timeout, metadata=metadata)
        return kind.FromString(answer), dict(call.initial_metadata())


def v2_json(door: Door, model: str, a: list[float], b: list[float]) -> Asked:
    """Open Inference, JSON."""
    inputs = [{**entry, "data": data} for entry, data in zip(_inputs(a, b), (a, b), strict=True)]
    return _of_json(door.post(f"/v2/models/{model}/infer", {"inputs": inputs}))


def v2_binary(door: Door, model: str, a: list[float], b: list[float]) -> Asked:
    """Open Inference, bytes behind JSON."""
    raw = [np.array(data, "<f4").tobytes() for data in (a, b)]
    inputs = [
        {**entry, "parameters": {"binary_data_size": len(data)}} for entry, data in zip(_inputs(a, b), raw, strict=True)
    ]
    head = json.dumps({"inputs": inputs}).encode()
    length = {"inference_header_content_length": str(len(head))}
    return _of_json(door.post(f"/v2/models/{model}/infer", head + b"".join(raw), **length))


def infer_request(model: str, a: list[float], b: list[float], *, raw: bool) -> oip.ModelInferRequest:
    """A message of Open Inference, with raw or with typed contents."""
    request = oip.ModelInferRequest(model_name=model)
    for name, data in (("a", a), ("b", b)):
        entry = request.inputs.add(name=name, datatype="FP32", shape=[len(data)])
        if raw:
            request.raw_input_contents.append(np.array(data, "<f4").tobytes())
        else:
            entry.contents.fp32_contents.extend(data)
    return request


def _v2_grpc(door: Door, model: str, a: list[float], b: list[float], *, raw: bool) -> Asked:
    answer, metadata = rpc(door, MODEL_INFER, infer_request(model, a, b, raw=raw), oip.ModelInferResponse)
    (index,) = (index for index, output in enumerate(answer.outputs) if output.name == "total")
    if answer.raw_output_contents:
        return Asked(np.frombuffer(answer.raw_output_contents[index], "<f4").tolist(), metadata)
    return Asked(list(answer.outputs[index].contents.fp32_contents), metadata)


def v2_grpc_typed(door: Door, model: str, a: list[float], b: list[float]) -> Asked:
    """Open Inference over gRPC, typed contents."""
    return _v2_grpc(door, model, a, b, raw=False)


def v2_grpc_raw(door: Door, model: str, a: list[float], b: list[float]) -> Asked:
    """Open Inference over gRPC, raw contents."""
    return _v2_grpc(door, model, a, b, raw=True)


def tf_columns(door: Door, model: str, a: list[float], b: list[float]) -> Asked:
    """TF Serving's REST by columns."""
    answer = door.post(f"/v1/models/{model}:predict", {"inputs": {"a": a, "b": b}})
    assert answer.status == 200, answer
    return Asked(answer.json["outputs"]["total"], answer.headers)


def tf_rows(door: Door, model: str, a: list[float], b: list[float]) -> Asked:
    """TF Serving's REST by rows."""
    rows = [{"a": one, "b": other} for one, other in zip(a, b, strict=True)]
    answer = door.post(f"/v1/models/{model}:predict", {"instances": rows})
    assert answer.status == 200, answer
    return Asked([row["total"] for row in answer.json["predictions"]], answer.headers)


def _tf_grpc(door: Door, model: str, a: list[float], b: list[float], *, packed: bool) -> Asked:
    request = tfs.PredictRequest(model_spec=tfs.ModelSpec(name=model))
    for name, data in (("a", a), ("b", b)):
        shape = tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=len(data))])
        tensor = tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=shape)
        if packed:
            tensor.tensor_content = np.array(data, "<f4").tobytes()
        else:
            tensor.float_val.extend(data)
        request.inputs[name].CopyFrom(tensor)
    answer, metadata = rpc(door, PREDICT, request, tfs.PredictResponse)
    total = answer.outputs["total"]
    return Asked(list(total.float_val) or np.frombuffer(total.tensor_content, "<f4").tolist(), metadata)


def tf_grpc_packed(door: Door, model: str, a: list[float], b: list[float]) -> Asked:
    """TF Serving's gRPC, `tensor_content`."""
    return _tf_grpc(door, model, a, b, packed=True)


def tf_grpc_values(door: Door, model: str, a: list[float], b: list[float]) -> Asked:
    """TF Serving's gRPC, repeated values."""
    return _tf_grpc(door, model, a, b, packed=False)


CLIENTS: tuple[Client, ...] = (
    v2_json,
    v2_binary,
    v2_grpc_typed,
    v2_grpc_raw,
    tf_columns,
    tf_rows,
    tf_grpc_packed,
    tf_grpc_values,
)
