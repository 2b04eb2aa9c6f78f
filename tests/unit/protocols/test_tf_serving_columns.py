"""TF Serving's column form to TorchServe models, as its clients see it."""

import base64
import json
from typing import Any

import pytest

from handler_gateway import answering, b64, gateway_with
from portico.codecs.handler import body_of, request_body
from portico.inference import Form, InferenceRequest, InferenceResponse
from portico.routing import Wire
from sample_gateway import SampleGateway

PREDICT = "/v1/models/m:predict"


async def ask(gateway: SampleGateway, inputs: Any) -> Any:
    answer = await gateway.rest("POST", PREDICT, {"inputs": inputs, "signature_name": "serving_default"})
    assert answer.status == 200, answer.body
    return answer.json()


def sent(gateway: SampleGateway) -> InferenceRequest:
    ((_, request, _),) = gateway.torchserve.calls
    return request


def body_sent(gateway: SampleGateway) -> tuple[bytes, str]:
    request = sent(gateway)
    assert request.form is Form.BODY
    return body_of(InferenceResponse(request.inputs)), request.content_type


@pytest.mark.parametrize(
    ("wire", "inputs", "body"),
    [
        (Wire.AUTO, [[1, 2.5]], [[1, 2.5]]),
        (Wire.AUTO, 3, 3),
        (Wire.AUTO, ["text"], ["text"]),
        (Wire.AUTO, {"x": [[1, 2]]}, [[1, 2]]),
        (Wire.AUTO, {"x": [1], "y": [2.5]}, {"x": [1], "y": [2.5]}),
        (Wire.AUTO, {"x": [b64(b"a"), b64("ä".encode())]}, ["a", "ä"]),
        (Wire.JSON, {"x": [b64(b"a")]}, [b64(b"a")]),
        (Wire.KSERVE_V1, [[1], [2]], {"instances": [[1], [2]]}),
        (Wire.KSERVE_V1, {"x": [1, 2]}, {"instances": [1, 2]}),
        (Wire.KSERVE_V1, {"x": [1, 2], "y": [3, 4]}, {"instances": [{"x": 1, "y": 3}, {"x": 2, "y": 4}]}),
    ],
)
async def test_columns_are_json(wire: Wire, inputs: Any, body: Any) -> None:
    """A list is the body, one named input too, several are members of an object; or what the policy says."""
    gateway = gateway_with(wire)
    gateway.torchserve.servables["m-2.0--loaded"] = answering(b'{"predictions": [1]}')
    await ask(gateway, inputs)
    found, content_type = body_sent(gateway)
    assert (json.loads(found), content_type) == (body, "application/json")


@pytest.mark.parametrize(
    ("wire", "inputs", "body"),
    [
        (Wire.AUTO, b64(b"\xff\0"), b"\xff\0"),
        (Wire.AUTO, [b64(b"\xff\0")], b"\xff\0"),
        (Wire.AUTO, {"x": [b64(b"\xff\0")]}, b"\xff\0"),
        (Wire.AUTO, {"x": ["text"]}, b"text"),
        (Wire.RAW, "text", b"text"),
        (Wire.RAW, {"x": [b64(b"\xff")]}, b"\xff"),
    ],
)
async def test_one_element_of_bytes_is_the_body(wire: Wire, inputs: Any, body: bytes) -> None:
    """One {"b64": …}, or one named string, is the body of the call."""
    gateway = gateway_with(wire)
    await ask(gateway, inputs)
    assert body_sent(gateway) == (body, "application/octet-stream")


@pytest.mark.parametrize("wire", [Wire.AUTO, Wire.KSERVE_V1])
async def test_as_by_open_inference(wire: Wire) -> None:
    """A handler gets the same as for the same tensors by the Open Inference Protocol."""
    tensors = [{"name": name, "shape": [2], "datatype": "INT64", "data": [1, 2]} for name in ("x", "y")]
    for inputs in (tensors[:1], tensors):
        gateway = gateway_with(wire)
        gateway.torchserve.servables["m-2.0--loaded"] = answering(b'{"predictions": [1]}')
        await gateway.rest("POST", "/v2/models/m/infer", {"inputs": inputs})
        await ask(gateway, {entry["name"]: entry["data"] for entry in inputs})
        (_, one, _), (_, other, _) = gateway.torchserve.calls
        assert request_body(one, wire) == request_body(other, wire)


async def test_parts() -> None:
    """Several inputs of one string each are the parts that they are by the Open Inference Protocol."""
    gateway = gateway_with()
    await ask(gateway, {"x": b64(b"\xff"), "y": ["text"]})
    request = sent(gateway)
    assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in request.inputs] == [
        ("x", "BYTES", (1,)),
        ("y", "BYTES", (1,)),
    ]
    assert request_body(request)[1].startswith("multipart/form-data")


@pytest.mark.parametrize(
    ("wire", "answer", "outputs"),
    [
        (Wire.AUTO, b"[0.10, 7]", [0.1, 7]),
        (Wire.AUTO, b'{"a": [1], "b": [2]}', {"a": [1], "b": [2]}),
        (Wire.AUTO, b'{"outputs": [1]}', [1]),
        (Wire.KSERVE_V1, b'{"predictions": [{"a": 1, "b": 2}]}', {"a": [1], "b": [2]}),
    ],
)
async def test_answers(wire: Wire, answer: bytes, outputs: Any) -> None:
    """The handler's JSON is the outputs."""
    gateway = gateway_with(wire)
    gateway.torchserve.servables["m-2.0--loaded"] = answering(answer)
    assert (await ask(gateway, [1])) == {"outputs": outputs}


@pytest.mark.parametrize(
    ("wire", "body", "says"),
    [
        (Wire.AUTO, {"inputs": [1], "instances": [1]}, "expecting only one of 'inputs' or 'instances' keys"),
        (Wire.AUTO, {"inputs": {}}, "no inputs"),
        (Wire.AUTO, {"inputs": {"b64": "?"}}, "'?' at position 0"),
        (Wire.AUTO, {"inputs": {"x": [b64(b"\xff"), b64(b"a")]}}, "no UTF-8 text"),
        (Wire.AUTO, {"inputs": [1], "signature_name": "triple"}, "has no signature 'triple'"),
        (Wire.AUTO, b'{"inputs": ' + b"[" * 900 + b"]" * 900 + b"}", "nested too deep"),
        (Wire.RAW, {"inputs": [1]}, "takes one body ('wire: raw' in its policy)"),
        (Wire.RAW, {"inputs": {"x": "a", "y": "b"}}, "takes one body ('wire: raw' in its policy)"),
        (Wire.KSERVE_V1, {"inputs": {"x": [1], "y": [1, 2]}}, "each input has to be a list with one element for each"),
        (Wire.KSERVE_V2, {"inputs": [1]}, "use POST /v2/models/m/infer"),
    ],
)
async def test_what_has_no_form(wire: Wire, body: Any, says: str) -> None:
    """What the handler cannot be asked is 400, says what would work, and reaches no model server."""
    gateway = gateway_with(wire)
    status, error = await gateway.refused("POST", PREDICT, body)
    assert (status, says in error["error"]) == (400, True), error
    assert not gateway.torchserve.calls


async def test_answers_that_have_no_form() -> None:
    """An answer that is no JSON is 406 with the path that gives it; one that is not of the envelope is 500."""
    gateway = gateway_with()
    gateway.torchserve.servables["m-2.0--loaded"] = answering(b"\x89PNG", "image/png")
    status, error = await gateway.refused("POST", PREDICT, {"inputs": [1]})
    assert (status, "POST /predictions/m" in error["error"]) == (406, True)
    status, error = await gateway_with(Wire.KSERVE_V1).refused("POST", PREDICT, {"inputs": [1]})
    assert (status, "not of the form 'kserve_v1'" in error["error"]) == (500, True)


async def test_the_rows_of_an_object() -> None:
    """An object of lists as long as the instances is told by rows; any other answer comes as it is, to the byte."""
    for answer, instances, predictions in (
        (b'{"a": [1, 2], "b": [[3], NaN]}', [0, 0], b'[{"a":1,"b":[3]},{"a":2,"b":NaN}]'),
        (b'{"a": [1]}', [0], b'[{"a":1}]'),
        (b'{"a": [1, 2]}', [0], b'{"a": [1, 2]}'),
        (b'{"a": [1], "b": 7}', [0], b'{"a": [1], "b": 7}'),
        (b"{}", [0], b"{}"),
        (b'{"a": [1]}', [b64(b"the body")], b'{"a": [1]}'),
    ):
        gateway = gateway_with()
        gateway.torchserve.servables["m-2.0--loaded"] = answering(answer)
        found = await gateway.rest("POST", PREDICT, {"instances": instances})
        assert found.body == b'{"predictions":' + predictions + b"}"


@pytest.mark.parametrize("colon", ["%3A", "%3a"])
async def test_a_quoted_colon(colon: str) -> None:
    """Clients that quote all of a path are answered, with a version as without."""
    gateway = gateway_with()
    for path in (f"m{colon}predict", f"m/versions/1.0{colon}predict", f"m/labels/stable{colon}predict"):
        answer = await gateway.rest("POST", f"/v1/models/{path}", {"instances": [1]})
        assert (answer.status, answer.json()) == (200, {"predictions": [0.1, 7]})


async def test_a_label_that_is_given_as_a_version(gateway: SampleGateway) -> None:
    """A 404 for a version that is a label says so, and how to reach it."""
    for path, key in (("/v2/models/iris/versions/stable", "error"), ("/models/iris/stable", "message")):
        status, answer = await gateway.refused("GET", path)
        assert status == 404
        assert "'stable' is a label, of version 1" in answer[key]
        assert "/v1/models/iris/labels/stable" in answer[key]


@pytest.mark.parametrize(
    "path",
    [
        "/ping", "/v2", "/v2/health/live", "/v2/models/iris", "/v2/models/iris/ready", "/v1/models/iris", "/v1/models",
        "/v1/models/iris/versions/1", "/v1/models/iris/metadata",
    ],
)  # fmt: skip
async def test_a_slash_at_the_end(gateway: SampleGateway, path: str) -> None:
    """A slash at the end of a path to read makes no difference."""
    answers = [await gateway.rest("GET", path + end) for end in ("", "/")]
    assert {answer.status for answer in answers} == {200}
    assert answers[0].json() == answers[1].json()


async def test_base64_in_lines(gateway: SampleGateway) -> None:
    """Base64 with line ends and without padding is taken wherever TF Serving takes it."""
    text = base64.encodebytes(b"grape" * 30).decode().rstrip("=\n")
    answer = await gateway.rest("POST", "/v1/models/text:predict", {"instances": [{"b64": text}]})
    assert answer.json()["predictions"][0]["upper"] == "GRAPE" * 30
    gateway = gateway_with()
    await gateway.rest("POST", PREDICT, {"instances": [{"b64": text}]})
    assert body_sent(gateway)[0] == b"grape" * 30
