"""Every protocol of this release through Envoy, and the numbers are those that the models give in Python directly."""

import json
import subprocess
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from door import Door

from portico.wire import tensorflow_pb2 as tf
from portico.wire import tf_serving_pb2 as tfs
from portico.wire import torchserve_pb2 as ts

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SEVEN = (ROOT / "examples/digits/seven.png").read_bytes()
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.2, 2.9, 4.3, 1.3], [7.7, 3.0, 6.1, 2.3]]
IMAGES = [[[(7 * row + 3 * column + seed) % 17 for column in range(8)] for row in range(8)] for seed in (0, 5)]


def direct(python: Path, script: str, model: str, values: Any) -> Any:
    command = [str(python), str(HERE / script), str(ROOT / "model-repository" / model)]
    ran = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def iris(tf_python: Path) -> dict[str, list[Any]]:
    """What TensorFlow itself says of ROWS."""
    answer: dict[str, list[Any]] = direct(tf_python, "direct_iris.py", "iris/1", ROWS)
    return answer


@pytest.fixture(scope="module")
def digits(torch_python: Path) -> "np.ndarray[Any, Any]":
    """What torch itself says of IMAGES, FP32 [2, 10]."""
    return np.array(direct(torch_python, "direct_digits.py", "digits.mar", IMAGES), np.float32)


@pytest.fixture(scope="module")
def digit(torch_python: Path) -> "np.ndarray[Any, Any]":
    """What torch itself says of the first alone, FP32 [10]: it adds up in another order where there are two."""
    return np.array(direct(torch_python, "direct_digits.py", "digits.mar", IMAGES[:1])[0], np.float32)


def flat(values: list[Any]) -> list[Any]:
    return np.array(values).ravel().tolist()


def same(found: Any, expected: Any) -> None:
    """Equal to float32 precision."""
    np.testing.assert_allclose(np.array(found, np.float32), np.array(expected, np.float32), rtol=1e-6, atol=1e-9)


def test_open_inference_to_tf_serving(door: Door, iris: dict[str, list[Any]]) -> None:
    """Open Inference REST gives TensorFlow's own numbers, with names, datatypes and shapes."""
    answer = door.infer("iris", "measurements", "FP32", flat(ROWS), [3, 4])
    assert answer.status == 200, answer.body
    outputs = {output["name"]: output for output in answer.json["outputs"]}
    assert (outputs["probabilities"]["datatype"], outputs["probabilities"]["shape"]) == ("FP32", [3, 3])
    same(outputs["probabilities"]["data"], flat(iris["probabilities"]))
    assert outputs["species"]["data"] == iris["species"]
    assert (answer.json["model_name"], answer.json["model_version"]) == ("iris", "1")


def test_open_inference_to_torchserve(door: Door, digits: "np.ndarray[Any, Any]") -> None:
    """Open Inference REST gives torch's own numbers."""
    answer = door.infer("digits", "image", "INT64", flat(IMAGES), [2, 8, 8])
    assert answer.status == 200, answer.body
    outputs = {output["name"]: output for output in answer.json["outputs"]}
    assert outputs["probabilities"]["shape"] == [2, 10]
    same(outputs["probabilities"]["data"], digits.ravel())
    assert outputs["digit"]["data"] == digits.argmax(axis=1).tolist()


def predict(door: Door, request: tfs.PredictRequest) -> tfs.PredictResponse:
    with grpc.insecure_channel(door.address) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        return tfs.PredictResponse.FromString(call(request.SerializeToString(), timeout=20))


@pytest.mark.parametrize("packed", [True, False], ids=["tensor_content", "float_val"])
def test_predict_over_grpc(door: Door, iris: dict[str, list[Any]], packed: bool) -> None:
    """TF Serving's Predict, by bytes on a plain channel, gives TensorFlow's own numbers, in typed fields."""
    values = np.array(ROWS, "<f4")
    request = tfs.PredictRequest()
    request.model_spec.name = "iris"
    tensor = request.inputs["measurements"]
    tensor.dtype = tf.DT_FLOAT
    for size in values.shape:
        tensor.tensor_shape.dim.add(size=size)
    if packed:
        tensor.tensor_content = values.tobytes()
    else:
        tensor.float_val.extend(values.ravel().tolist())
    response = predict(door, request)
    same(response.outputs["probabilities"].float_val, flat(iris["probabilities"]))
    assert list(response.outputs["species"].int64_val) == iris["species"]
    assert (response.model_spec.name, response.model_spec.version.value) == ("iris", 1)


def test_tf_serving_rest(door: Door, iris: dict[str, list[Any]]) -> None:
    """`:predict` gives TensorFlow's own numbers in row form and in column form."""
    rows = door.post("/v1/models/iris:predict", {"instances": ROWS}).json["predictions"]
    same([row["probabilities"] for row in rows], iris["probabilities"])
    columns = door.post("/v1/models/iris/versions/1:predict", {"inputs": {"measurements": ROWS}}).json["outputs"]
    same(columns["probabilities"], iris["probabilities"])


def test_torchserve_rest(door: Door, digit: "np.ndarray[Any, Any]") -> None:
    """`/predictions` hands a JSON body and a PNG to the handler as they are, and its JSON comes back as it is."""
    answer = door.post("/predictions/digits", IMAGES[0], content_type="application/json")
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"].startswith("application/json")
    same(answer.json["probabilities"], digit)
    picture = door.post("/predictions/digits/1.0", SEVEN, content_type="image/png")
    assert picture.json["digit"] == 7


def test_torchserve_grpc(door: Door) -> None:
    """`Predictions` and `Ping` answer over gRPC as TorchServe's own do."""
    service = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/"
    with grpc.insecure_channel(door.address) as channel:
        request = ts.PredictionsRequest(model_name="digits", input={"data": SEVEN})
        answer = channel.unary_unary(service + "Predictions")(request.SerializeToString(), timeout=20)
        assert json.loads(ts.PredictionResponse.FromString(answer).prediction)["digit"] == 7
        health = channel.unary_unary(service + "Ping")(b"", timeout=20)
        assert json.loads(ts.TorchServeHealthResponse.FromString(health).health)["status"] == "Healthy"


def test_metadata_and_status(door: Door) -> None:
    """Metadata and status are the models' real ones, in both protocols that have them, and name no internals."""
    described = door.get("/v2/models/iris").json
    assert described["inputs"] == [{"name": "measurements", "datatype": "FP32", "shape": [-1, 4]}]
    assert described["versions"] == ["1"]
    signature = door.get("/v1/models/iris/metadata").json["metadata"]["signature_def"]["signature_def"][
        "serving_default"
    ]
    assert signature["inputs"]["measurements"]["dtype"] == "DT_FLOAT"
    status = door.get("/v1/models/iris").json["model_version_status"]
    assert [(entry["version"], entry["state"]) for entry in status] == [("1", "AVAILABLE")]
    with grpc.insecure_channel(door.address) as channel:
        asked = tfs.GetModelMetadataRequest(metadata_field=["signature_def"])
        asked.model_spec.name = "iris"
        call = channel.unary_unary("/tensorflow.serving.PredictionService/GetModelMetadata")
        answer = tfs.GetModelMetadataResponse.FromString(call(asked.SerializeToString(), timeout=20))
    signatures = tfs.SignatureDefMap()
    answer.metadata["signature_def"].Unpack(signatures)
    assert (
        signatures.signature_def["serving_default"].inputs["measurements"].name
        == signature["inputs"]["measurements"]["name"]
    )


def test_health_and_index(door: Door) -> None:
    """Readiness of the stack and of each model, and the repository index, tell what can answer."""
    assert door.get("/healthz").status == 200
    assert door.get("/readyz").json["model_servers"] == {"tf_serving": "ok", "torchserve": "ok"}
    assert door.get("/v2").json["name"] == "portico"
    for path in (
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/iris/ready",
        "/v2/models/digits/versions/1.0/ready",
    ):
        assert door.get(path).status == 200, path
    listed = [(entry["name"], entry["version"], entry["state"]) for entry in door.post("/v2/repository/index").json]
    assert listed == [("digits", "1.0", "READY"), ("iris", "1", "READY")]
    assert door.get("/ping").json == {"status": "Healthy"}
