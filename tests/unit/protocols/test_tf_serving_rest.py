"""TF Serving over REST, as its clients see it."""

import base64
import json
from typing import Any

import pytest

from asgi_client import Answer
from portico.inference import InferenceResponse, Tensor
from sample_gateway import LIMIT, PAST_CACHE, SampleGateway

ROWS = [[0.5, 0.25, 1.0, 9.0], [1.0, 0.0, 0.0, 9.0]]


async def predict(gateway: SampleGateway, model: str, body: Any, headers: Any = ()) -> Answer:
    return await gateway.rest("POST", f"/v1/models/{model}:predict", body, headers)


async def refusal(gateway: SampleGateway, model: str, body: Any) -> tuple[int, str]:
    status, answer = await gateway.refused("POST", f"/v1/models/{model}:predict", body)
    assert answer.keys() == {"error"}
    return status, answer["error"]


async def test_row_form(gateway: SampleGateway) -> None:
    """Instances are answered with one prediction each, an object of outputs where there are several."""
    answer = await predict(gateway, "iris", {"instances": ROWS})
    assert answer.status == 200
    assert answer.json() == {
        "predictions": [
            {"probabilities": [0.5, 0.25, 1.0], "species": 2},
            {"probabilities": [1.0, 0.0, 0.0], "species": 0},
        ]
    }


async def test_row_form_with_names(gateway: SampleGateway) -> None:
    """Instances may name their inputs, and have to where the model has several."""
    answer = await predict(gateway, "iris", {"instances": [{"measurements": row} for row in ROWS]})
    assert [entry["species"] for entry in answer.json()["predictions"]] == [2, 0]
    answer = await predict(gateway, "sum", {"instances": [{"a": 1, "b": 2}, {"b": 20, "a": 10}]})
    assert answer.json() == {"predictions": [3, 30]}


async def test_column_form(gateway: SampleGateway) -> None:
    """Inputs by column are answered by column, named where there are several."""
    answer = await predict(gateway, "iris", {"inputs": ROWS})
    assert answer.json() == {"outputs": {"probabilities": [[0.5, 0.25, 1.0], [1.0, 0.0, 0.0]], "species": [2, 0]}}
    answer = await predict(gateway, "sum", {"inputs": {"a": [1, 2], "b": [3, 4]}})
    assert answer.json() == {"outputs": [4, 6]}


async def test_a_scalar(gateway: SampleGateway) -> None:
    """In column form a tensor without dimensions is a number outside any list, going in and coming out."""
    assert (await predict(gateway, "half", {"inputs": 3})).json() == {"outputs": 1.5}
    assert (await predict(gateway, "half", {"inputs": {"x": 3}})).json() == {"outputs": 1.5}
    assert (await predict(gateway, "half", {"instances": [3]})).json() == {"predictions": [1.5]}


async def test_numbers_that_json_has_not(gateway: SampleGateway) -> None:
    """NaN and the infinities go in and come out as their words, in either form."""
    body = json.dumps({"instances": [float("nan"), float("inf"), 1]}).encode()
    assert (await predict(gateway, "half", body)).body == b'{"predictions":[NaN,Infinity,0.5]}'
    body = json.dumps({"inputs": -float("inf")}).encode()
    assert (await predict(gateway, "half", body)).body == b'{"outputs":-Infinity}'
    body = json.dumps({"instances": [[float("nan"), 0, 0, 0]]}).encode()
    assert b'"probabilities":[NaN,0.0,0.0]' in (await predict(gateway, "iris", body)).body


async def test_strings(gateway: SampleGateway) -> None:
    """Strings are JSON text, or base64 in an object; outputs called `..._bytes` come back as base64."""

    def b64(value: bytes) -> dict[str, str]:
        return {"b64": base64.b64encode(value).decode()}

    expected = [
        {"upper": "A", "raw_bytes": b64(b"\xffa")},
        {"upper": "B", "raw_bytes": b64(b"\xffb")},
    ]
    for instances in (["a", "b"], [b64(b"a"), b64(b"b")], [{"text": "a"}, {"text": b64(b"b")}], [b64(b"a"), "b"]):
        assert (await predict(gateway, "text", {"instances": instances})).json() == {"predictions": expected}
    answer = (await predict(gateway, "text", {"inputs": {"text": ["a"]}})).json()
    assert answer == {"outputs": {"upper": ["A"], "raw_bytes": [b64(b"\xffa")]}}


@pytest.mark.parametrize(
    ("path", "version"),
    [("iris", "2"), ("iris/versions/1", "1"), ("iris/labels/stable", "1"), ("iris/labels/canary", "2")],
)
async def test_versions_and_labels(gateway: SampleGateway, path: str, version: str) -> None:
    """A call goes to the version or label in its path, and without one to the default."""
    assert (await predict(gateway, path, {"instances": ROWS})).status == 200
    assert [route.version for route, _, _ in gateway.tf_serving.calls] == [version]


async def test_the_cache(gateway: SampleGateway) -> None:
    """`x-cache` tells a miss, a hit from either form of the same tensors, and that a client wanted it fresh."""
    bodies = [({"instances": ROWS}, ()), ({"inputs": ROWS}, ()), ({"instances": ROWS}, PAST_CACHE)]
    answers = [await predict(gateway, "iris", body, headers) for body, headers in bodies]
    assert [answer.header(b"x-cache") for answer in answers] == ["MISS", "HIT", "BYPASS"]
    assert "outputs" in answers[1].json()


@pytest.mark.parametrize(
    ("model", "body", "says"),
    [
        ("iris", b"{", "not JSON"),
        ("iris", [1], "has to be a JSON object, it is a list"),
        ("iris", {}, "either 'instances' (row form) or 'inputs' (column form)"),
        ("iris", {"instances": ROWS, "inputs": ROWS}, "and not both"),
        ("iris", {"instances": []}, "at least one instance"),
        ("iris", {"instances": {}}, "has to be a list"),
        ("iris", {"instances": None}, "has to be a list"),
        ("iris", {"instances": ROWS, "signature_name": 1}, "'signature_name' has to be a string"),
        ("iris", {"instances": ROWS, "signature_name": "train"}, "no signature 'train'. Its signatures: 'classify'"),
        (
            "iris",
            {"instances": ROWS, "signature_name": "classify"},
            "'examples': the model takes BYTES, its data holds",
        ),
        ("iris", {"instances": [[1, 2, 3]]}, "given FP32 [1, 3], the model takes FP32 [-1, 4]"),
        ("iris", {"instances": [[1, 2], [3]]}, "'measurements': its lists are ragged"),
        ("iris", {"instances": [["a", "b", "c", "d"]]}, "'measurements': the model takes FP32, its data holds strings"),
        ("iris", {"instances": [{"petals": ROWS[0]}]}, "no input 'petals'. Its inputs: measurements"),
        ("iris", {"inputs": {"petals": ROWS}}, "no input 'petals'. Its inputs: measurements"),
        ("iris", {"inputs": None}, "'measurements': the model takes FP32, its data holds nulls"),
        ("iris", {"inputs": {"b64": "AAAA"}}, "'measurements': the model takes FP32, its data holds objects"),
        ("sum", {"instances": [1, 2]}, "The model takes the inputs a, b: name each in a JSON object"),
        ("sum", {"inputs": [1]}, "The model takes the inputs a, b: name each in a JSON object"),
        ("sum", {"instances": [{"a": 1, "b": 2}, {"a": 1}]}, "the same inputs as the first"),
        ("sum", {"instances": [{"a": 1, "b": 2}, 3]}, "the same inputs as the first"),
        ("sum", {"instances": [3, {"a": 1, "b": 2}]}, "the same inputs as the first"),
        ("sum", {"instances": [{"a": 1}]}, "also takes input 'b' (INT32 [-1])"),
        ("sum", {"instances": [{"a": 1.5, "b": 2}]}, "'a': the model takes INT32, its data holds floating-point"),
        ("sum", {"instances": [{"a": 1 << 31, "b": 2}]}, "'a': a value does not fit INT32"),
        ("text", {"instances": [{"b64": "?"}]}, "'text': its b64 is not base64"),
        ("text", {"instances": [{"b64": 1}]}, "'text': its b64 is not base64"),
        ("text", {"instances": [{"b64": "ä"}]}, "'text': its b64 is not base64"),
        ("text", b'{"inputs": ' + b"[" * 1000 + b"]" * 1000 + b"}", "'text': its lists are nested too deep"),
        ("iris", {}, "Missing 'inputs' or 'instances' key"),
        ("digits", {"rows": [1]}, "declares no signature"),
        ("digits", {"inputs": [1], "signature_name": "triple"}, "has no signature 'triple': TorchServe declares none"),
        ("digits", {"instances": [1], "signature_name": "triple"}, 'name: "triple" not found in signature def'),
        (
            "iris",
            {"instances": ROWS, "signature_name": "nope"},
            'Serving signature name: "nope" not found in signature def',
        ),
        ("half", {"inputs": 1, "instances": [1]}, "and not both"),
    ],
)
async def test_bad_requests(gateway: SampleGateway, model: str, body: Any, says: str) -> None:
    """A request that cannot be answered is 400, says what is wrong with it, and reaches no model server."""
    status, text = await refusal(gateway, model, body)
    assert status == 400
    assert says in text
    assert not gateway.tf_serving.calls
    assert not gateway.torchserve.calls


async def test_a_model_without_signature_names_the_way(gateway: SampleGateway) -> None:
    """A model for which JSON alone does not say the datatypes is refused with the calls that work for it."""
    _, text = await refusal(gateway, "digits", {"rows": [1]})
    assert "'instances'" in text
    assert "'inputs'" in text
    assert "/v2/models/digits/infer" in text
    assert "/predictions/digits" in text


async def test_outputs_without_a_batch(gateway: SampleGateway) -> None:
    """Outputs that have no row for each instance are refused in row form, which says that the column form works."""
    scalar = InferenceResponse((Tensor("y", "FP32", (), bytes(4)),))
    gateway.tf_serving.servables["half-1--loaded"] = lambda request: scalar
    status, text = await refusal(gateway, "half", {"instances": [1]})
    assert (status, "use the column form" in text) == (400, True)
    assert (await predict(gateway, "half", {"inputs": [1]})).json() == {"outputs": 0.0}


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("iriss", 404, "Servable not found for request: Latest(iriss)"),
        ("iris/versions/9", 404, "Servable not found for request: Specific(iris, 9)"),
        ("iris/labels/new", 404, "Unrecognized servable version label: new"),
        ("loading", 503, "it is being loaded"),
        ("damaged", 503, "damaged is quarantined for a reason"),
    ],
)
async def test_models_that_cannot_answer(gateway: SampleGateway, path: str, status: int, says: str) -> None:
    """A model that is not there is 404 in TF Serving's words; one that is not ready is 503 with the reason."""
    found, text = await refusal(gateway, path, {"instances": ROWS})
    assert found == status
    assert says in text


async def test_failures_behind(gateway: SampleGateway) -> None:
    """A model that fails is 500 with its text, a model server that is gone 503, a body over the limit 413."""
    assert await refusal(gateway, "fails", {"instances": [1]}) == (500, "the graph divided by zero")
    gateway.tf_serving.go_down()
    assert (await refusal(gateway, "half", {"instances": [1]}))[0] == 503
    assert (await refusal(gateway, "half", bytes(LIMIT + 1)))[0] == 413


OK = {"error_code": "OK", "error_message": ""}


async def test_status(gateway: SampleGateway) -> None:
    """Status lists all versions, newest first, in TF Serving's JSON."""
    answer = await gateway.rest("GET", "/v1/models/iris")
    assert answer.json() == {
        "model_version_status": [
            {"version": "2", "state": "AVAILABLE", "status": OK},
            {"version": "1", "state": "AVAILABLE", "status": OK},
        ]
    }


@pytest.mark.parametrize("path", ["iris/versions/1", "iris/labels/stable"])
async def test_status_of_one(gateway: SampleGateway, path: str) -> None:
    """Status of one version or label is of that one."""
    answer = await gateway.rest("GET", f"/v1/models/{path}")
    assert answer.json() == {"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": OK}]}


@pytest.mark.parametrize(
    ("model", "state", "code", "message"),
    [
        ("loading", "LOADING", "OK", ""),
        ("away", "UNKNOWN", "UNAVAILABLE", "away is unavailable for a reason"),
        ("refused", "END", "UNKNOWN", "refused is failed for a reason"),
        ("damaged", "END", "INVALID_ARGUMENT", "damaged is quarantined for a reason"),
    ],
)
async def test_status_of_what_is_not_ready(
    gateway: SampleGateway, model: str, state: str, code: str, message: str
) -> None:
    """A version that cannot answer has TF Serving's state for it, and its reason; the call itself succeeds."""
    answer = await gateway.rest("GET", f"/v1/models/{model}")
    (status,) = answer.json()["model_version_status"]
    assert (answer.status, status["state"]) == (200, state)
    assert status["status"] == {"error_code": code, "error_message": message}


async def test_status_of_what_is_not_there(gateway: SampleGateway) -> None:
    """Status of an unknown model, version or label is 404."""
    for path in ("iriss", "iris/versions/9", "iris/labels/new"):
        status, body = await gateway.refused("GET", f"/v1/models/{path}")
        assert (status, list(body)) == (404, ["error"])


@pytest.mark.parametrize("path", ["iris", "iris/versions/2", "iris/labels/canary"])
async def test_metadata(gateway: SampleGateway, path: str) -> None:
    """Metadata holds every signature in the JSON of TensorFlow's SignatureDef, sizes as text."""
    body = (await gateway.rest("GET", f"/v1/models/{path}/metadata")).json()
    assert body["model_spec"] == {"name": "iris", "signature_name": "", "version": "2"}
    signatures = body["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) == {"serving_default", "classify"}
    assert signatures["serving_default"]["method_name"] == "tensorflow/serving/predict"
    assert signatures["serving_default"]["inputs"]["measurements"] == {
        "dtype": "DT_FLOAT",
        "name": "serving_default_measurements:0",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}, {"size": "4", "name": ""}], "unknown_rank": False},
    }


async def test_metadata_that_there_is_not(gateway: SampleGateway) -> None:
    """A model that declares no signature has one of its body; one that is not there is 404, one not ready 503."""
    body = (await gateway.rest("GET", "/v1/models/digits/metadata")).json()
    (signature,) = body["metadata"]["signature_def"]["signature_def"].items()
    assert (signature[0], list(signature[1]["inputs"]), list(signature[1]["outputs"])) == (
        "serving_default",
        ["body"],
        ["body"],
    )
    assert signature[1]["inputs"]["body"]["dtype"] == "DT_STRING"
    for path, status in (("iriss", 404), ("iris/versions/9", 404), ("loading", 503)):
        assert (await gateway.refused("GET", f"/v1/models/{path}/metadata"))[0] == status


async def test_wrong_methods(gateway: SampleGateway) -> None:
    """Another method is 405 in the protocol's form, with the one that is allowed."""
    for method, path, allow in (
        ("GET", "iris:predict", "POST"),
        ("POST", "iris", "GET"),
        ("PUT", "iris/metadata", "GET"),
    ):
        answer = await gateway.rest(method, f"/v1/models/{path}")
        assert (answer.status, answer.header(b"allow")) == (405, allow)
        assert allow in answer.json()["error"]
