"""The `wire` of a TorchServe model's policy, as clients of each protocol see it."""

from dataclasses import replace
from typing import Any

import pytest

from portico.codecs.handler import raw_response
from portico.routing import CallPolicy, RouteTable, Server, State, Wire
from portico.wire import tensorflow_pb2 as tf
from portico.wire import tf_serving_pb2 as tfs
from sample_gateway import SampleGateway, model, parsed

INPUT = {"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [1]}]}
ANSWERS: dict[Wire, Any] = {
    Wire.RAW: (b'{"y": 1}', [{"name": "body", "datatype": "BYTES", "shape": [1], "data": ['{"y": 1}']}]),
    Wire.KSERVE_V1: (
        b'{"predictions": [1]}',
        [{"name": "predictions", "datatype": "INT64", "shape": [1], "data": [1]}],
    ),
    Wire.KSERVE_V2: (
        b'{"outputs": [{"name": "y", "shape": [1], "datatype": "INT8", "data": [1]}]}',
        [{"name": "y", "datatype": "INT8", "shape": [1], "data": [1]}],
    ),
}


def gateway_with(wire: Wire, body: bytes) -> SampleGateway:
    """A gateway whose one handler answers `body`, and whose policy says `wire`."""
    found = model("m", Server.TORCHSERVE, {"1.0": State.READY})
    version = found.versions["1.0"]
    assert version.route
    route = replace(version.route, policy=CallPolicy(wire=wire))
    table = RouteTable({"m": replace(found, versions={"1.0": replace(version, route=route)})})
    gateway = SampleGateway(table=table)
    gateway.torchserve.servables = {route.servable: lambda _: raw_response(body, "application/json")}
    return gateway


@pytest.mark.parametrize("wire", ANSWERS)
async def test_answers_in_tensors(wire: Wire) -> None:
    """The Open Inference Protocol and TF Serving's read an answer as the policy says, from the cache as well."""
    body, outputs = ANSWERS[wire]
    gateway = gateway_with(wire, body)
    for cache in ("MISS", "HIT"):
        answer = await gateway.rest("POST", "/v2/models/m/infer", INPUT)
        assert (answer.json()["outputs"], answer.header(b"x-cache")) == (outputs, cache)
    x = tf.TensorProto(dtype=tf.DT_INT64, tensor_shape=tf.TensorShapeProto(), int64_val=[1])
    request = tfs.PredictRequest(model_spec=tfs.ModelSpec(name="m"), inputs={"x": x})
    found = parsed(await gateway.grpc("/tensorflow.serving.PredictionService/Predict", request), tfs.PredictResponse)
    assert list(found.outputs) == [outputs[0]["name"]]


@pytest.mark.parametrize("wire", ANSWERS)
async def test_torchserves_own_protocol(wire: Wire) -> None:
    """TorchServe's own clients get what the handler answers, whatever the policy says."""
    body, _ = ANSWERS[wire]
    assert (await gateway_with(wire, body).rest("POST", "/predictions/m", b"x")).body == body


async def test_an_answer_of_another_form() -> None:
    """A handler that does not answer as its policy says is 500, with what is wrong."""
    status, body = await gateway_with(Wire.KSERVE_V2, b"[1]").refused("POST", "/v2/models/m/infer", INPUT)
    assert (status, "not of the form 'kserve_v2', as its policy says" in body["error"]) == (500, True)
