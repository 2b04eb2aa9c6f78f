"""GetModelMetadata and GetModelStatus over gRPC and REST."""

from typing import Any

import grpc
import pytest
from standin_process import StandIn, shape, spec

from portico.wire import tensorflow_pb2 as tf
from portico.wire import tf_serving_pb2 as wire


def metadata(server: StandIn, model_spec: wire.ModelSpec, *fields: str) -> wire.GetModelMetadataResponse:
    """PredictionService.GetModelMetadata."""
    request = wire.GetModelMetadataRequest(model_spec=model_spec, metadata_field=fields)
    return server.call("PredictionService/GetModelMetadata", request, wire.GetModelMetadataResponse)


def test_metadata_has_the_tensors_of_the_saved_model(server: StandIn) -> None:
    """Signatures come with the tensor names, datatypes and shapes of the SavedModel itself."""
    response = metadata(server, spec("half"), "signature_def")
    signatures = wire.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    signature = signatures.signature_def["serving_default"]
    assert signature.inputs["x"] == tf.TensorInfo(name="serving_default_x:0", dtype=tf.DT_FLOAT, tensor_shape=shape(-1))
    assert signature.method_name == "tensorflow/serving/predict"
    assert set(signatures.signature_def) == {"serving_default", "triple", "__saved_model_init_op"}
    assert response.model_spec == spec("half", version=5)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ((), "GetModelMetadataRequest must specify at least one metadata_field"),
        (("weights",), "Metadata field weights is not supported"),
    ],
)
def test_metadata_needs_a_field_it_knows(server: StandIn, fields: tuple[str, ...], text: str) -> None:
    """signature_def is the only metadata there is."""
    with pytest.raises(grpc.RpcError) as caught:
        metadata(server, spec("half"), *fields)
    error: Any = caught.value
    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, text)


def test_metadata_over_rest_has_tf_servings_shape(server: StandIn) -> None:
    """REST tells the same, with TF Serving's nesting, names and numbers as strings."""
    code, answer = server.rest_json("GET", "/v1/models/half/metadata")
    assert (code, answer["model_spec"]) == (200, {"name": "half", "signature_name": "", "version": "5"})
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"] == {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
        "name": "serving_default_x:0",
    }


def test_metadata_over_rest_by_version_and_label(server: StandIn) -> None:
    """A version or a label in the path chooses the version."""
    for path in ("versions/5", "labels/stable"):
        assert server.rest_json("GET", f"/v1/models/half/{path}/metadata")[1]["model_spec"]["version"] == "5"


def test_status_over_grpc(server: StandIn) -> None:
    """A loaded version is AVAILABLE, with an OK status."""
    (status,) = server.statuses("half").values()
    assert (status.name, status.code, status.message) == ("AVAILABLE", 0, "")


@pytest.mark.parametrize(
    ("model_spec", "text"),
    [
        (spec("nobody"), "Could not find any versions of model nobody"),
        (spec("half", version=4), "Could not find version 4 of model half"),
    ],
)
def test_status_of_the_unknown_is_not_found(server: StandIn, model_spec: wire.ModelSpec, text: str) -> None:
    """What was never loaded is NOT_FOUND, with TF Serving's text."""
    request = wire.GetModelStatusRequest(model_spec=model_spec)
    with pytest.raises(grpc.RpcError) as caught:
        server.call("ModelService/GetModelStatus", request, wire.GetModelStatusResponse)
    error: Any = caught.value
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, text)


@pytest.mark.parametrize("path", ["half", "half/versions/5", "half/labels/stable", "h%61lf"])
def test_status_over_rest(server: StandIn, path: str) -> None:
    """REST tells the state of all versions, or of the one in the path, with numbers as strings."""
    assert server.rest_json("GET", f"/v1/models/{path}") == (
        200,
        {
            "model_version_status": [
                {"version": "5", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
            ]
        },
    )


@pytest.mark.parametrize(
    ("path", "code", "text"),
    [
        ("/v1/models/nobody", 404, "Could not find any versions of model nobody"),
        ("/v1/models/nobody/metadata", 404, "Servable not found for request: Latest(nobody)"),
        ("/v1/models/half/versions/4", 404, "Could not find version 4 of model half"),
        ("/v1/models/half/labels/canary/metadata", 400, "Unrecognized servable version label: canary"),
        ("/v1/models", 400, "Missing model name in request."),
        ("/v1/models/half/weights", 400, "Malformed request: GET /v1/models/half/weights"),
        ("/v1/models/half:predict", 400, "Malformed request: GET /v1/models/half:predict"),
    ],
)
def test_rest_refusals(server: StandIn, path: str, code: int, text: str) -> None:
    """A GET that cannot be answered gets TF Serving's HTTP code and {"error": text}."""
    assert server.rest_json("GET", path) == (code, {"error": text})


def test_paths_outside_the_api_are_404(server: StandIn) -> None:
    """What is not below /v1/ is 404."""
    assert server.rest("GET", "/")[0] == 404
