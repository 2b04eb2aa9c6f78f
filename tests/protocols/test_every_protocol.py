"""Predictions with the two demo models in every protocol of the door, and what tools ask it beside: from outside, by
its address alone. That the numbers are the models' own is shown in tests/stack; here every protocol gives the same.
"""

import base64
import json
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from calls import Door
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from portico.wire import health_pb2 as health
from portico.wire import open_inference_pb2 as oip
from portico.wire import tensorflow_pb2 as tf
from portico.wire import tf_serving_pb2 as tfs
from portico.wire import torchserve_pb2 as ts

SEVEN = (Path(__file__).parents[2] / "examples/digits/seven.png").read_bytes()
ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [6.2, 2.9, 4.3, 1.3], [7.7, 3.0, 6.1, 2.3]], "<f4")
"""A flower of each species, in their order."""
NAMES = ["setosa", "versicolor", "virginica"]
IMAGES = [[[(7 * row + 3 * column + seed) % 17 for column in range(8)] for row in range(8)] for seed in (0, 5)]
INPUT = {"name": "measurements", "datatype": "FP32", "shape": [3, 4]}
PREDICTION = "tensorflow.serving.PredictionService"
TORCHSERVE = "org.pytorch.serve.grpc.inference.InferenceAPIsService"


@pytest.fixture(scope="module")
def iris(door: Door) -> Any:
    """The probabilities of ROWS, [3, 3], by Open Inference REST."""
    answer = door.post("/v2/models/iris/infer", {"inputs": [{**INPUT, "data": ROWS.ravel().tolist()}]})
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert outputs["species"]["data"] == [0, 1, 2]
    assert outputs["probabilities"]["shape"] == [3, 3]
    found = np.array(outputs["probabilities"]["data"]).reshape(3, 3)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    return found


@pytest.fixture(scope="module")
def digits(door: Door) -> Any:
    """What the handler says of IMAGES as TorchServe's own clients ask it."""
    answer = door.post("/predictions/digits", IMAGES)
    assert len(answer["digit"]) == len(answer["probabilities"]) == 2
    return answer


def same(found: Any, expected: Any) -> None:
    """Equal to float32 precision."""
    np.testing.assert_allclose(np.array(found, "f4"), np.array(expected, "f4"), rtol=1e-6, atol=1e-9)


def test_open_inference_with_binary_tensors(door: Door, iris: Any) -> None:
    """The binary tensor extension, both ways."""
    raw = ROWS.tobytes()
    entry = {**INPUT, "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [entry], "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]})
    length = str(len(head))
    status, headers, body = door.call(
        "POST", "/v2/models/iris/infer", head.encode() + raw, inference_header_content_length=length
    )
    assert status == 200, body
    same(np.frombuffer(body[int(headers["inference-header-content-length"]) :], "<f4").reshape(3, 3), iris)


def test_open_inference_over_grpc(door: Door, iris: Any) -> None:
    """`ModelInfer` with raw contents, and readiness and metadata of the model."""
    request = oip.ModelInferRequest(model_name="iris", raw_input_contents=[ROWS.tobytes()])
    request.inputs.add(name="measurements", datatype="FP32", shape=[3, 4])
    answer = door.grpc("inference.GRPCInferenceService/ModelInfer", request, oip.ModelInferResponse)
    raw = {output.name: raw for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)}
    same(np.frombuffer(raw["probabilities"], "<f4").reshape(3, 3), iris)
    ready = oip.ModelReadyRequest(name="digits")
    assert door.grpc("inference.GRPCInferenceService/ModelReady", ready, oip.ModelReadyResponse).ready
    asked = oip.ModelMetadataRequest(name="iris")
    told = door.grpc("inference.GRPCInferenceService/ModelMetadata", asked, oip.ModelMetadataResponse)
    assert [(tensor.name, tensor.datatype) for tensor in told.inputs] == [("measurements", "FP32")]


def test_open_inference_to_torchserve(door: Door, digits: Any) -> None:
    """A PyTorch model answers in tensors."""
    entry = {"name": "image", "datatype": "INT64", "shape": [2, 8, 8], "data": np.ravel(IMAGES).tolist()}
    answer = door.post("/v2/models/digits/infer", {"inputs": [entry]})
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    assert outputs["digit"] == digits["digit"]
    same(np.array(outputs["probabilities"]).reshape(2, 10), digits["probabilities"])


def test_tf_serving_rest(door: Door, iris: Any) -> None:
    """`:predict` in row form, which is KServe's V1 too, and in column form; `:classify`; status and metadata."""
    rows = door.post("/v1/models/iris:predict", {"instances": ROWS.tolist()})["predictions"]
    same([row["probabilities"] for row in rows], iris)
    columns = door.post("/v1/models/iris/versions/1:predict", {"inputs": {"measurements": ROWS.tolist()}})["outputs"]
    same(columns["probabilities"], iris)
    examples = [{"measurements": row} for row in ROWS.tolist()]
    classes = door.post("/v1/models/iris:classify", {"signature_name": "classify", "examples": examples})["results"]
    same([[score for _, score in row] for row in classes], iris)
    assert door.get("/v1/models/iris")["model_version_status"][0]["state"] == "AVAILABLE"
    assert "serving_default" in door.get("/v1/models/iris/metadata")["metadata"]["signature_def"]["signature_def"]


def test_kserve_v1_to_torchserve(door: Door, digits: Any) -> None:
    """KServe V1 lists the models, and asks the PyTorch one with JSON and with a picture."""
    assert door.get("/v1/models")["models"] == ["digits", "iris"]
    rows = door.post("/v1/models/digits:predict", {"instances": IMAGES})["predictions"]
    assert [row["digit"] for row in rows] == digits["digit"]
    picture = {"b64": base64.b64encode(SEVEN).decode()}
    assert door.post("/v1/models/digits:predict", {"instances": [picture]})["predictions"]["digit"] == 7


def test_tf_serving_over_grpc(door: Door, iris: Any) -> None:
    """`Predict`, `Classify` and `GetModelMetadata`."""
    request = tfs.PredictRequest(model_spec=tfs.ModelSpec(name="iris"))
    tensor = request.inputs["measurements"]
    tensor.dtype, tensor.tensor_content = tf.DT_FLOAT, ROWS.tobytes()
    for size in ROWS.shape:
        tensor.tensor_shape.dim.add(size=size)
    predicted = door.grpc(f"{PREDICTION}/Predict", request, tfs.PredictResponse)
    same(np.reshape(predicted.outputs["probabilities"].float_val, (3, 3)), iris)
    examples = tfs.ClassificationRequest(model_spec=tfs.ModelSpec(name="iris", signature_name="classify"))
    for row in ROWS.tolist():
        example = examples.input.example_list.examples.add()
        example.features.feature["measurements"].float_list.value.extend(row)
    classified = door.grpc(f"{PREDICTION}/Classify", examples, tfs.ClassificationResponse).result.classifications
    same([[entry.score for entry in row.classes] for row in classified], iris)
    assert [entry.label for entry in classified[0].classes] == NAMES
    asked = tfs.GetModelMetadataRequest(model_spec=tfs.ModelSpec(name="iris"), metadata_field=["signature_def"])
    told = door.grpc(f"{PREDICTION}/GetModelMetadata", asked, tfs.GetModelMetadataResponse)
    signatures = tfs.SignatureDefMap()
    assert told.metadata["signature_def"].Unpack(signatures)
    assert "serving_default" in signatures.signature_def


def test_torchserve_rest(door: Door, digits: Any) -> None:
    """`/predictions` takes JSON and a picture, by version too."""
    assert door.post("/predictions/digits/1.0", IMAGES[0])["digit"] == digits["digit"][0]
    assert door.post("/predictions/digits", SEVEN, content_type="image/png")["digit"] == 7
    assert door.get("/ping") == {"status": "Healthy"}


def test_torchserve_over_grpc(door: Door) -> None:
    """`Predictions` and `Ping`."""
    request = ts.PredictionsRequest(model_name="digits", input={"data": SEVEN})
    answer = door.grpc(f"{TORCHSERVE}/Predictions", request, ts.PredictionResponse)
    assert json.loads(answer.prediction)["digit"] == 7
    told = door.grpc(f"{TORCHSERVE}/Ping", tfs.GetModelMetadataRequest(), ts.TorchServeHealthResponse)
    assert json.loads(told.health)["status"] == "Healthy"


def test_grpc_health_and_reflection(door: Door) -> None:
    """The standard health service knows gateway, models and services; reflection describes a service whole."""
    for service in ("", "iris", "digits", PREDICTION):
        asked = health.HealthCheckRequest(service=service)
        told = door.grpc("grpc.health.v1.Health/Check", asked, health.HealthCheckResponse)
        assert told.status == health.HealthCheckResponse.SERVING, service
    with grpc.insecure_channel(door.address) as channel:
        described = DescriptorPool(ProtoReflectionDescriptorDatabase(channel)).FindServiceByName(PREDICTION)
        assert "Predict" in described.methods_by_name


def test_grpc_web(door: Door) -> None:
    """A browser's call: the message in its frame, then the trailers in theirs."""
    message = health.HealthCheckRequest(service="iris").SerializeToString()
    frame = b"\0" + len(message).to_bytes(4, "big") + message
    path = "/grpc.health.v1.Health/Check"
    status, headers, body = door.call("POST", path, frame, content_type="application/grpc-web+proto", x_grpc_web="1")
    assert (status, headers["content-type"]) == (200, "application/grpc-web+proto"), body
    end = 5 + int.from_bytes(body[1:5], "big")
    assert health.HealthCheckResponse.FromString(body[5:end]).status == health.HealthCheckResponse.SERVING
    assert body[end] == 0x80
    assert b"grpc-status:0" in body[end:].replace(b" ", b"")


def test_health_listing_and_pages(door: Door) -> None:
    """Health for operators, the list of models, and the pages and documents for people."""
    assert door.get("/healthz") == {"status": "ok"}
    assert door.get("/readyz")["model_servers"] == {"tf_serving": "ok", "torchserve": "ok"}
    for path in (
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/iris/ready",
        "/v2/models/digits/versions/1.0/ready",
    ):
        assert door.call("GET", path)[0] == 200, path
    listed = {(entry["name"], entry["version"], entry["state"]) for entry in door.post("/v2/repository/index", {})}
    assert {("digits", "1.0", "READY"), ("iris", "1", "READY")} <= listed
    assert "/v2/models/{model}/infer" in door.get("/openapi.json")["paths"]
    for path in ("/docs", "/v2/models/iris/docs"):
        status, headers, page = door.call("GET", path)
        assert (status, headers["content-type"].split(";")[0]) == (200, "text/html"), path
        assert b"<html" in page


def test_what_is_not_there(door: Door) -> None:
    """An unknown model is refused by REST and by gRPC, naming it."""
    status, _, body = door.call("POST", "/v2/models/absent/infer", {"inputs": []})
    assert (status, "absent" in json.loads(body)["error"]) == (404, True)
    with pytest.raises(grpc.RpcError) as refused:
        door.grpc(
            f"{PREDICTION}/Predict",
            tfs.PredictRequest(model_spec=tfs.ModelSpec(name="absent")),
            tfs.PredictResponse,
        )
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
