"""The REST API: row and column forms, strings and bytes, rounding, and the texts for what does not fit."""

import base64
import gzip
import json
from typing import Any

import pytest
from standin_process import StandIn

PREDICT = "/v1/models/half:predict"


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        (PREDICT, {"instances": [1, 2.0, 5]}, {"predictions": [6.5, 7.0, 8.5]}),
        (PREDICT, {"instances": [{"x": 1}, {"x": 2}]}, {"predictions": [6.5, 7.0]}),
        (PREDICT, {"inputs": [1, 2]}, {"outputs": [6.5, 7.0]}),
        (PREDICT, {"inputs": {"x": [1, 2]}}, {"outputs": [6.5, 7.0]}),
        ("/v1/models/half/versions/5:predict", {"instances": [1]}, {"predictions": [6.5]}),
        ("/v1/models/half/labels/stable:predict", {"instances": [1]}, {"predictions": [6.5]}),
        (
            PREDICT,
            {"signature_name": "triple", "instances": [2]},
            {"predictions": [{"y": 6.0, "x_again": 2.0}]},
        ),
        (
            PREDICT,
            {"signature_name": "triple", "inputs": [2]},
            {"outputs": {"y": [6.0], "x_again": [2.0]}},
        ),
        (
            "/v1/models/product:predict",
            {"instances": [{"matrix": [1, 2], "vector": [3, 4]}]},
            {"predictions": [{"product": [11.0], "sum": [4.0, 6.0]}]},
        ),
        (
            "/v1/models/product:predict",
            {"inputs": {"matrix": [[1, 2]], "vector": [[3, 4]]}},
            {"outputs": {"product": [[11.0]], "sum": [[4.0, 6.0]]}},
        ),
        ("/v1/models/text:predict", {"signature_name": "count", "inputs": ["a", "b"]}, {"outputs": 2}),
        ("/v1/models/tf1:predict", {"instances": [[1], [4]]}, {"predictions": [[2.5], [4.0]]}),
    ],
)
def test_predict_forms(server: StandIn, path: str, body: object, answer: object) -> None:
    """Rows answer with "predictions", columns with "outputs"; one output stands bare, several are named."""
    assert server.rest_json("POST", path, body) == (200, answer)


def test_strings_and_bytes(server: StandIn) -> None:
    """Strings go in as text or as b64; outputs whose alias ends in _bytes come back as b64."""
    body = {"instances": ["aä", {"b64": base64.b64encode(b"xy").decode()}]}
    shouted = [{"b64": base64.b64encode(value).decode()} for value in ("Aä".encode(), b"XY")]
    code, answer = server.rest_json("POST", "/v1/models/text:predict", body)
    assert (code, answer) == (
        200,
        {
            "predictions": [
                {"shouted": "Aä", "shouted_bytes": shouted[0]},
                {"shouted": "XY", "shouted_bytes": shouted[1]},
            ]
        },
    )


def test_every_datatype_over_rest(server: StandIn) -> None:
    """JSON carries every datatype it can, at the ends of their ranges, exactly."""
    values = {
        "float32": 0.2,
        "float64": 1e300,
        "int32": -(2**31),
        "int64": 2**63 - 1,
        "uint8": 255,
        "int8": -128,
        "int16": 32767,
        "uint32": 2**32 - 1,
        "uint64": 2**64 - 1,
        "bool": True,
        "string": "s",
    }
    code, answer = server.rest_json("POST", "/v1/models/echo:predict", {"inputs": values})
    assert (code, answer) == (200, {"outputs": {f"{name}_out": value for name, value in values.items()}})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0.2", "0.2"),
        ("16777216", "16777216.0"),
        ("1e30", "1e+30"),
        ("0.1234567890123", "0.123456791"),
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
    ],
)
def test_floats_are_rounded_as_tf_serving_does(server: StandIn, value: str, text: str) -> None:
    """A float32 is written with six digits when they are exact, else nine, and always looks like a float."""
    body = f'{{"signature_name": "triple", "inputs": [{value}]}}'.encode()
    code, answer = server.rest("POST", PREDICT, body)
    assert code == 200
    assert f'"x_again": [{text}]' in answer


def test_what_follows_the_object_is_ignored(server: StandIn) -> None:
    """The real server stops reading at the end of the JSON object."""
    assert server.rest_json("POST", PREDICT, b' {"instances": [1]} and more') == (200, {"predictions": [6.5]})


def test_gzipped_bodies_are_read(server: StandIn) -> None:
    """A body with Content-Encoding: gzip is unpacked."""
    body = gzip.compress(b'{"instances": [1]}')
    code, text = server.rest("POST", PREDICT, body, {"Content-Encoding": "gzip"})
    assert (code, json.loads(text)) == (200, {"predictions": [6.5]})


def test_large_bodies_are_read(server: StandIn) -> None:
    """Bodies of megabytes pass."""
    code, answer = server.rest_json("POST", PREDICT, {"instances": [0.5] * 400_000})
    assert (code, len(answer["predictions"])) == (200, 400_000)


def test_classify_and_regress(server: StandIn) -> None:
    """tf.Examples as JSON objects give label and score pairs, or values."""
    examples = [{"x": 1.0}, {"x": [4.0]}]
    assert server.rest_json(
        "POST", "/v1/models/tf1:classify", {"signature_name": "classify", "examples": examples}
    ) == (200, {"results": [[["yes", 2.5], ["no", -1.5]], [["yes", 4.0], ["no", -3.0]]]})
    assert server.rest_json(
        "POST",
        "/v1/models/tf1/versions/1:regress",
        {"signature_name": "regress", "examples": examples, "context": {"bias": 10.0}},
    ) == (200, {"results": [12.5, 14.0]})


@pytest.mark.parametrize(
    ("path", "body", "code", "text"),
    [
        ("/v1/models/nobody:predict", {"instances": [1]}, 404, "Servable not found for request: Latest(nobody)"),
        ("/v1/models/half/versions/9:predict", {}, 404, "Servable not found for request: Specific(half, 9)"),
        ("/v1/models/half/labels/x:predict", {"instances": [1]}, 400, "Unrecognized servable version label: x"),
        ("/v1/models/half", {"instances": [1]}, 400, "Malformed request: POST /v1/models/half"),
        ("/v1/models/half:explain", {}, 400, "Malformed request: POST /v1/models/half:explain"),
        (PREDICT, b"", 400, "JSON Parse error: The document is empty"),
        (PREDICT, b"{", 400, "JSON Parse error: "),
        (PREDICT, [1], 400, "JSON Value: [1] Is not object"),
        (PREDICT, {}, 400, "Missing 'inputs' or 'instances' key"),
        (PREDICT, {"instances": []}, 400, 'JSON Value: {\n    "instances": []\n} No values in \'instances\' array'),
        (PREDICT, {"instances": 1}, 400,
         'JSON Value: {\n    "instances": 1\n} Expecting \'instances\' to be an list/array'),
        (PREDICT, {"instances": [1], "inputs": [1]}, 400, "JSON Value: {"),
        (PREDICT, {"signature_name": 1, "instances": [1]}, 400, "JSON Value: {"),
        (PREDICT, {"signature_name": "no"}, 400, 'Serving signature name: "no" not found in signature def'),
        (
            PREDICT,
            {"instances": ["a"]},
            400,
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
            'JSON Value: "a" Type: String is not of expected type: float',
        ),
        (
            PREDICT,
            {"instances": [{"z": 1}]},
            400,
            "Failed to process element: 0 key: z of 'instances' list. Error: INVALID_ARGUMENT: "
            "JSON object: does not have named input: z",
        ),
        (
            PREDICT,
            {"instances": [[1, 2], [3]]},
            400,
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
            "Expecting tensor size: 2 but got: 1",
        ),
        (PREDICT, {"instances": [1, {"x": 1}]}, 400, "Expecting value/list but got object at item 1 of input list"),
        (PREDICT, {"inputs": [[1, 2], [3]]}, 400,
         "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        (PREDICT, {"inputs": [True]}, 400, "JSON Value: true Type: True is not of expected type: float"),
        (PREDICT, {"inputs": {"z": 1}}, 400, "Missing named input: x in 'inputs' object."),
        (
            "/v1/models/product:predict",
            {"instances": [[1, 2]]},
            400,
            "instances is a plain list, but expecting list of objects as multiple "
            "input tensors required as per tensorinfo_map",
        ),
        (
            "/v1/models/product:predict",
            {"instances": [{"matrix": [1, 2]}]},
            400,
            "Failed to process element: 0 of 'instances' list. JSON object: {",
        ),
        ("/v1/models/text:predict", {"inputs": [{"b64": "?"}]}, 400, "Unable to base64 decode"),
        ("/v1/models/text:predict", {"signature_name": "count", "instances": ["a"]}, 400,
         "Tensor name: count has no shape information "),
        ("/v1/models/tf1:regress", {"signature_name": "regress"}, 400, "JSON Value: {"),
        ("/v1/models/tf1:regress", {"signature_name": "no", "examples": [{"x": 1.0}]}, 400,
         "No signature was found with the name: no"),
    ],
)  # fmt: skip
def test_refusals(server: StandIn, path: str, body: object, code: int, text: str) -> None:
    """What cannot be served gets TF Serving's HTTP code and {"error": text}."""
    found, answer = server.rest_json("POST", path, body)
    assert (found, list(answer), answer["error"][: len(text)]) == (code, ["error"], text)


def test_other_methods_are_malformed(server: StandIn) -> None:
    """Only GET and POST are served."""
    assert server.rest_json("DELETE", "/v1/models/half") == (
        400,
        {"error": "Malformed request: DELETE /v1/models/half"},
    )


def test_wrong_shapes_are_400_with_the_ops_text(server: StandIn) -> None:
    """An error of the model itself keeps its text."""
    body: dict[str, Any] = {"inputs": {"matrix": [[1, 2]], "vector": [[1]]}}
    code, answer = server.rest_json("POST", "/v1/models/product:predict", body)
    assert code == 400
    assert "Matrix size-incompatible" in answer["error"]


def test_datatypes_json_cannot_carry_are_501(server: StandIn) -> None:
    """Half floats have no form in TF Serving's JSON."""
    body = {"signature_name": "more", "inputs": {"float16": 1, "bfloat16": 1, "complex64": 1}}
    code, answer = server.rest_json("POST", "/v1/models/echo:predict", body)
    assert code == 501
    assert answer["error"].startswith("Conversion of JSON Value: 1 to type: ")
