"""TF Serving's dialect, spoken by clients that other people made: ovmsclient and tensorflow-serving-api's own stubs;
and KServe's V1 form, for which an HTTP client is enough.
"""

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import third_party
from door import Door, eventually

from portico.local.stack import Stack

HERE = Path(__file__).parent
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.2, 2.9, 4.3, 1.3], [7.7, 3.0, 6.1, 2.3]]
IMAGES = [[[(7 * row + 3 * column + seed) % 17 for column in range(8)] for row in range(8)] for seed in (0, 5)]
SEVEN = (HERE.parents[1] / "examples/digits/seven.png").read_bytes()
MODEL = "half-of-examples"
READY_SECONDS = 60.0
SPECIES = ["setosa", "versicolor", "virginica"]
CLASSES = [[["yes", 2.5], ["no", -1.5]], [["yes", 4.0], ["no", -3.0]]]


def same(found: Any, expected: Any) -> None:
    """Equal to float32 precision."""
    np.testing.assert_allclose(np.array(found, np.float32), np.array(expected, np.float32), rtol=1e-6, atol=1e-9)


@pytest.fixture(scope="module")
def iris(door: Door) -> dict[str, list[Any]]:
    """What `:predict` says of ROWS; test_predictions.py holds it against TensorFlow itself."""
    outputs: dict[str, list[Any]] = door.post("/v1/models/iris:predict", {"inputs": ROWS}).json["outputs"]
    return outputs


@pytest.fixture(scope="module")
def examples(door: Door, stack: Stack, tf_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a model that classifies and regresses tf.Examples."""
    made = tmp_path_factory.mktemp("examples") / "1"
    command = [str(tf_python), str(HERE / "make_examples.py"), str(made)]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    folder = stack.models / MODEL
    shutil.copytree(made, folder / "1")
    eventually(lambda: door.get(f"/v2/models/{MODEL}/ready").status == 200, READY_SECONDS, f"{MODEL} is ready")
    yield MODEL
    shutil.rmtree(folder)
    eventually(lambda: door.get(f"/v2/models/{MODEL}").status == 404, READY_SECONDS, f"{MODEL} is gone")


def test_ovmsclient(door: Door, iris: dict[str, list[Any]]) -> None:
    """ovmsclient predicts and reads metadata and status over gRPC and HTTP, with a version and without, and raises its
    own errors with our texts."""
    told = third_party.run("ovms.py", door.address, json.dumps(ROWS), json.dumps(IMAGES))
    available = {"state": "AVAILABLE", "error_code": 0, "error_message": ""}
    for transport in told.values():
        same(transport["probabilities"], iris["probabilities"])
        assert transport["species"] == transport["default"] == iris["species"]
        assert transport["status"] == transport["status of 1"] == {"1": available}
        errors = transport["errors"]
        assert {kind: name for kind, (name, _) in errors.items()} == {
            "model": "ModelNotFoundError",
            "version": "ModelNotFoundError",
            "input": "InvalidInputError",
        }
        assert "Servable not found for request: Latest(absent)" in errors["model"][1]
        assert "no input 'petals'" in errors["input"][1]
    raw = door.post("/predictions/digits", IMAGES, content_type="application/json").json
    for transport in told.values():
        assert transport["digits"]["digit"] == raw["digit"]
        same(transport["digits"]["probabilities"], raw["probabilities"])
    body = {"body": {"shape": [1], "dtype": "DT_STRING"}}
    assert told["grpc"]["metadata of digits"] == {"model_version": 0, "inputs": body, "outputs": body}
    metadata = told["grpc"]["metadata"]
    assert (metadata["model_version"], metadata["inputs"]) == (
        1,
        {"measurements": {"shape": [-1, 4], "dtype": "DT_FLOAT"}},
    )
    # Over HTTP it reads OpenVINO's spelling, and passes TF Serving's on as it is.
    assert told["http"]["metadata"]["model_spec"]["version"] == "1"


def test_tensorflow_serving_api(door: Door, iris: dict[str, list[Any]], examples: str, tf_python: Path) -> None:
    """TF Serving's own stubs: Predict, Classify, Regress, MultiInference, metadata and status; a reload is denied."""
    told = third_party.run("tf_serving_stubs.py", door.address, json.dumps(ROWS), examples, python=tf_python)
    same([[score for _, score in row] for row in told["iris"]], iris["probabilities"])
    assert [[label for label, _ in row] for row in told["iris"]] == [SPECIES] * len(ROWS)
    assert told["predict"]["filtered"] == {"species": iris["species"]}
    same(told["predict"]["probabilities"], iris["probabilities"])
    assert (told["predict"]["spec"], told["predict"]["x-cache"]) == (["iris", 1, "serving_default"], "BYPASS")
    assert told["tasks"] == {
        "classes": CLASSES,
        "classify spec": [MODEL, 1, "serving_default"],
        "values": [12.5, 14.0],
        "multi values": [2.5, 4.0],
        "multi classes": CLASSES,
    }
    assert told["about"] == {
        "input": "serving_default_measurements:0",
        "states": [[1, "AVAILABLE"]],
        "reload": "PERMISSION_DENIED",
    }


def test_classify_and_regress_over_rest(door: Door, examples: str) -> None:
    """`:classify` and `:regress` answer in TF Serving's JSON, by default and by version; what does not fit is 400."""
    body: dict[str, Any] = {"examples": [{"x": 1.0}, {"x": [4.0]}]}
    assert door.post(f"/v1/models/{examples}:classify", body).json == {"results": CLASSES}
    named = body | {"signature_name": "regress", "context": {"bias": 10.0}}
    assert door.post(f"/v1/models/{examples}/versions/1:regress", named).json == {"results": [12.5, 14.0]}
    refused = door.post(f"/v1/models/{examples}:regress", body)
    assert (refused.status, refused.json) == (400, {"error": "Expected one output Tensor."})
    refused = door.post(f"/v1/models/{examples}:classify", {"examples": [{"z": 1.0}]})
    assert (refused.status, "Feature: x (data type: float) is required" in refused.json["error"]) == (400, True)
    assert "--" not in refused.json["error"]


def test_classify_with_the_example(door: Door, iris: dict[str, list[Any]]) -> None:
    """The example `iris` classifies tf.Examples by its second signature, as its read-me says."""
    body = {"signature_name": "classify", "examples": [{"measurements": row} for row in ROWS]}
    answer = door.post("/v1/models/iris:classify", body)
    assert answer.status == 200, answer.body
    assert [[label for label, _ in row] for row in answer.json["results"]] == [SPECIES] * len(ROWS)
    same([[score for _, score in row] for row in answer.json["results"]], iris["probabilities"])


def test_a_signature_of_a_model_that_has_none(door: Door) -> None:
    """A signature of a TorchServe model is refused in each protocol that can name one."""
    image = {"name": "image", "shape": [1, 8, 8], "datatype": "INT64", "data": np.ravel(IMAGES[0]).tolist()}
    for path, body in (
        ("/v1/models/digits:predict", {"instances": IMAGES, "signature_name": "triple"}),
        ("/v1/models/digits:predict", {"inputs": IMAGES, "signature_name": "triple"}),
        ("/v2/models/digits/infer", {"inputs": [image], "parameters": {"signature_name": "triple"}}),
    ):
        refused = door.post(path, body)
        assert (refused.status, "has no signature 'triple'" in refused.json["error"]) == (400, True)


def test_kserve_v1_to_torchserve(door: Door) -> None:
    """KServe V1 predicts with a TorchServe model: instances are the JSON that the handler reads, or one picture is."""
    raw = door.post("/predictions/digits", IMAGES, content_type="application/json").json
    answer = door.post("/v1/models/digits:predict", {"instances": IMAGES})
    rows = [{"digit": raw["digit"][row], "probabilities": raw["probabilities"][row]} for row in range(len(IMAGES))]
    assert (answer.status, answer.json) == (200, {"predictions": rows}), answer.body
    answer = door.post("/v1/models/digits:predict", {"inputs": IMAGES})
    assert (answer.status, answer.json) == (200, {"outputs": raw}), answer.body
    picture = {"b64": base64.b64encode(SEVEN).decode()}
    answer = door.post("/v1/models/digits/versions/1.0:predict", {"instances": [picture]})
    assert answer.json["predictions"]["digit"] == 7, answer.body
    refused = door.post("/v1/models/digits:predict", {"instances": [picture, picture]})
    assert (refused.status, "wire: kserve_v1" in refused.json["error"]) == (400, True)


def test_what_a_server_does_not_have(door: Door) -> None:
    """A TorchServe model classifies no examples, and says so; explanations of a model that has none are refused."""
    refused = door.post("/v1/models/digits:classify", {"examples": [{"x": 1.0}]})
    assert (refused.status, "is served by TorchServe" in refused.json["error"]) == (400, True)
    refused = door.post("/v1/models/iris:explain", {"instances": ROWS})
    assert (refused.status, "has no explanations" in refused.json["error"]) == (400, True)
