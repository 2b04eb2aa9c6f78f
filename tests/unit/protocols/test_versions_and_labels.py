"""A version or a label, in each place where a protocol lets a client name one: it is what answers."""

from dataclasses import replace
from typing import Any

import pytest

from portico.routing import RouteTable, Server, State
from portico.wire import tensorflow_pb2 as tf
from portico.wire import tf_serving_pb2 as tfs
from portico.wire import torchserve_pb2 as ts
from sample_gateway import IRIS, SampleGateway, model, parsed

INSTANCES = {"instances": [[0.5, 0.25, 1.0, 9.0]]}
TENSORS = {"inputs": [{"name": "measurements", "shape": [1, 4], "datatype": "FP32", "data": [0.5, 0.25, 1.0, 9.0]}]}
ROW = tf.TensorProto(
    dtype=tf.DT_FLOAT,
    tensor_shape=tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=1), tf.TensorShapeProto.Dim(size=4)]),
    float_val=[0.5, 0.25, 1.0, 9.0],
)
SERVICE = "/tensorflow.serving."


@pytest.fixture
def labelled() -> SampleGateway:
    """Two models with several versions: the default is not the newest, and one version cannot be called."""
    states = {"1": State.READY, "2": State.READY, "3": State.LOADING, "4": State.DRAINING}
    iris = replace(model("iris", Server.TF_SERVING, states, IRIS), default="1", labels={"stable": "1", "next": "2"})
    archives = {"1.0": State.READY, "1.1": State.READY}
    digits = replace(model("digits", Server.TORCHSERVE, archives), default="1.0", labels={"canary": "1.1"})
    return SampleGateway(table=RouteTable({"iris": iris, "digits": digits}))


def called(gateway: SampleGateway) -> list[str]:
    """The versions that model servers were asked for."""
    return [route.version for server in (gateway.tf_serving, gateway.torchserve) for route, _, _ in server.calls]


@pytest.mark.parametrize(
    ("path", "body", "version"),
    [
        ("/v1/models/iris:predict", INSTANCES, "1"),
        ("/v1/models/iris/versions/2:predict", INSTANCES, "2"),
        ("/v1/models/iris/labels/stable:predict", INSTANCES, "1"),
        ("/v1/models/iris/labels/next:predict", INSTANCES, "2"),
        ("/v2/models/iris/infer", TENSORS, "1"),
        ("/v2/models/iris/versions/2/infer", TENSORS, "2"),
        ("/v2/models/digits/versions/1.1/infer", TENSORS, "1.1"),
        ("/predictions/digits", b"x", "1.0"),
        ("/predictions/digits/1.1", b"x", "1.1"),
    ],
)
async def test_rest_calls(labelled: SampleGateway, path: str, body: Any, version: str) -> None:
    """Over REST, the version or label in the path answers, and without one the default does."""
    assert (await labelled.rest("POST", path, body)).status == 200
    assert called(labelled) == [version]


@pytest.mark.parametrize(
    ("path", "version"),
    [
        ("/v1/models/iris/metadata", "1"),
        ("/v1/models/iris/versions/2/metadata", "2"),
        ("/v1/models/iris/labels/next/metadata", "2"),
    ],
)
async def test_rest_metadata(labelled: SampleGateway, path: str, version: str) -> None:
    """TF Serving's metadata is that of the version or label in the path."""
    assert (await labelled.rest("GET", path)).json()["model_spec"]["version"] == version


@pytest.mark.parametrize(
    ("path", "versions"),
    [
        ("iris", [("4", "UNLOADING"), ("3", "LOADING"), ("2", "AVAILABLE"), ("1", "AVAILABLE")]),
        ("iris/versions/3", [("3", "LOADING")]),
        ("iris/versions/4", [("4", "UNLOADING")]),
        ("iris/labels/stable", [("1", "AVAILABLE")]),
        ("digits/labels/canary", [("0", "AVAILABLE")]),
        ("digits/versions/1.1", [("0", "AVAILABLE")]),
    ],
)
async def test_rest_status(labelled: SampleGateway, path: str, versions: list[tuple[str, str]]) -> None:
    """TF Serving's status is that of the version or label in the path; one of TorchServe's has no number there."""
    listed = (await labelled.rest("GET", f"/v1/models/{path}")).json()["model_version_status"]
    assert [(entry["version"], entry["state"]) for entry in listed] == versions


@pytest.mark.parametrize(
    ("path", "status", "version"),
    [
        ("iris", 200, "1"),
        ("iris/versions/2", 200, "2"),
        ("iris/versions/3", 503, "3"),
        ("digits/versions/1.1", 200, "1.1"),
    ],
)
async def test_open_inference_readiness(labelled: SampleGateway, path: str, status: int, version: str) -> None:
    """Open Inference readiness is that of the version in the path, and metadata names those that can be called."""
    ready = await labelled.rest("GET", f"/v2/models/{path}/ready")
    assert (ready.status, ready.json()["version"]) == (status, version)
    found = (await labelled.rest("GET", f"/v2/models/{path}")).json()
    assert found["versions"] == (["1", "2"] if found["name"] == "iris" else ["1.0", "1.1"])


@pytest.mark.parametrize(
    ("named", "version"), [({}, 1), ({"version": {"value": 2}}, 2), ({"version_label": "next"}, 2)], ids=str
)
async def test_tf_serving_grpc(labelled: SampleGateway, named: Any, version: int) -> None:
    """`model_spec.version` and `version_label` choose what answers Predict, GetModelMetadata and GetModelStatus."""
    spec = tfs.ModelSpec(name="iris", **named)
    request = tfs.PredictRequest(model_spec=spec, inputs={"measurements": ROW})
    answer = parsed(await labelled.grpc(f"{SERVICE}PredictionService/Predict", request), tfs.PredictResponse)
    assert (answer.model_spec.version.value, called(labelled)) == (version, [str(version)])
    metadata = tfs.GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
    found = await labelled.grpc(f"{SERVICE}PredictionService/GetModelMetadata", metadata)
    assert parsed(found, tfs.GetModelMetadataResponse).model_spec.version.value == version
    status = tfs.GetModelStatusRequest(model_spec=spec)
    listed = parsed(await labelled.grpc(f"{SERVICE}ModelService/GetModelStatus", status), tfs.GetModelStatusResponse)
    assert [entry.version for entry in listed.model_version_status] == ([version] if named else [4, 3, 2, 1])


@pytest.mark.parametrize(("given", "version"), [("", "1.0"), ("1.1", "1.1")])
async def test_torchserve_grpc(labelled: SampleGateway, given: str, version: str) -> None:
    """`model_version` of TorchServe's gRPC chooses what answers."""
    request = ts.PredictionsRequest(model_name="digits", model_version=given, input={"data": b"x"})
    answer = await labelled.grpc("/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions", request)
    assert parsed(answer, ts.PredictionResponse).prediction
    assert called(labelled) == [version]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/models/iris/versions/9:predict"),
        ("POST", "/v1/models/iris/versions/x:predict"),
        ("POST", "/v1/models/iris/versions/4:predict"),
        ("POST", "/v1/models/iris/labels/new:predict"),
        ("GET", "/v1/models/iris/labels/new"),
        ("GET", "/v1/models/iris/labels/new/metadata"),
        ("GET", "/v1/models/iris/versions/x"),
        ("POST", "/v2/models/iris/versions/9/infer"),
        ("POST", "/v2/models/iris/versions/4/infer"),
        ("GET", "/v2/models/iris/versions/9"),
        ("GET", "/v2/models/iris/versions/9/ready"),
        ("POST", "/predictions/digits/2.0"),
    ],
)
async def test_what_is_not_there(labelled: SampleGateway, method: str, path: str) -> None:
    """A version or label that there is not, or no longer, is 404 in each of them, in the words of its server."""
    status, body = await labelled.refused(method, path, TENSORS)
    assert status == 404
    words = ("Servable not found", "Unrecognized servable version label: new", "Model version: 2.0 does not exist for")
    assert any(text in str(body) for text in words)
    assert called(labelled) == []


@pytest.mark.parametrize("version", ["9" * 19, "9" * 30, "1.0", "²"])
async def test_a_version_that_tf_serving_has_no_number_for(version: str) -> None:
    """A version of TorchServe's that is no 64-bit number is 0 in TF Serving's status, and no failure."""
    gateway = SampleGateway(table=RouteTable({"m": model("m", Server.TORCHSERVE, {version: State.READY})}))
    (listed,) = (await gateway.rest("GET", "/v1/models/m")).json()["model_version_status"]
    assert (listed["version"], listed["state"]) == ("0", "AVAILABLE")
