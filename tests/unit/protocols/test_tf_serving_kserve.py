"""KServe's V1 protocol to TorchServe models, as its clients see it."""

import json
from typing import Any

import pytest

from asgi_client import Answer
from handler_gateway import answering, b64, gateway_with
from portico.codecs.handler import body_of, raw_response
from portico.inference import Form, InferenceRequest, InferenceResponse
from portico.routing import Wire
from sample_gateway import PAST_CACHE, SampleGateway


async def ask(gateway: SampleGateway, body: Any, path: str = "m:predict", headers: Any = ()) -> Answer:
    return await gateway.rest("POST", f"/v1/models/{path}", body, headers)


def sent(gateway: SampleGateway) -> tuple[bytes, str]:
    """(body, content type) that the handler got with the one call."""
    ((_, request, _),) = gateway.torchserve.calls
    assert request.form is Form.BODY
    return body_of(InferenceResponse(request.inputs)), request.content_type


@pytest.mark.parametrize("wire", [Wire.AUTO, Wire.JSON])
@pytest.mark.parametrize(
    "instances", [[[1, 2.5], [3, 4]], [{"a": 1}, {"a": 2}], ["text"], ["a", "b"], [7], [[[True]], None]]
)
async def test_instances_are_the_body(wire: Wire, instances: Any) -> None:
    """A handler gets the list of the instances as a JSON body, and its JSON comes back to the byte."""
    gateway = gateway_with(wire)
    answer = await ask(gateway, {"instances": instances, "signature_name": "serving_default"})
    assert answer.body == b'{"predictions":[0.10, 7]}'
    assert answer.json() == {"predictions": [0.1, 7]}
    body, content_type = sent(gateway)
    assert (json.loads(body), content_type) == (instances, "application/json")


async def test_numbers_that_json_has_not() -> None:
    """NaN and the infinities reach the handler as their words, and come back as such."""
    gateway = gateway_with()
    gateway.torchserve.servables["m-2.0--loaded"] = answering(b"[NaN]")
    answer = await ask(gateway, b'{"instances": [NaN, Infinity]}')
    assert (sent(gateway)[0], answer.body) == (b"[NaN,Infinity]", b'{"predictions":[NaN]}')


@pytest.mark.parametrize(
    ("wire", "instance", "body"),
    [
        (Wire.AUTO, b64(b"\xff\0"), b"\xff\0"),
        (Wire.RAW, b64(b"\xff\0"), b"\xff\0"),
        (Wire.RAW, "text", b"text"),
    ],
)
async def test_one_instance_of_bytes_is_the_body(wire: Wire, instance: Any, body: bytes) -> None:
    """The bytes of the one instance, such as a picture, are the body of the call."""
    gateway = gateway_with(wire)
    assert (await ask(gateway, {"instances": [instance]})).status == 200
    assert sent(gateway) == (body, "application/octet-stream")


async def test_base64_of_a_handler_that_reads_it() -> None:
    """With `wire: json` base64 objects go to the handler as they are."""
    gateway = gateway_with(Wire.JSON)
    await ask(gateway, {"instances": [b64(b"a"), b64(b"b")]})
    assert json.loads(sent(gateway)[0]) == [b64(b"a"), b64(b"b")]


async def test_the_envelope() -> None:
    """With `wire: kserve_v1` the body goes to the handler to the byte, and so does the answer to the client."""
    gateway = gateway_with(Wire.KSERVE_V1)
    gateway.torchserve.servables["m-2.0--loaded"] = answering(b'{"predictions" : [1]}')
    body = b'{ "instances": [{"b64": "AA=="}], "parameters": {"k": 1.0} }'
    assert (await ask(gateway, body)).body == b'{"predictions" : [1]}'
    assert sent(gateway) == (body, "application/json")


@pytest.mark.parametrize(("verb", "key"), [("predict", "predictions"), ("explain", "explanations")])
async def test_an_answer_that_has_the_key(verb: str, key: str) -> None:
    """A handler that answers in the protocol's own form is not wrapped a second time."""
    gateway = gateway_with()
    gateway.torchserve.servables["m-2.0--loaded"] = answering(json.dumps({key: [1], "model": "x"}).encode())
    answer = await ask(gateway, {"instances": [1]}, f"m:{verb}")
    assert answer.json() == {key: [1], "model": "x"}


async def test_explain() -> None:
    """`:explain` asks for the handler's explanation, which has an entry of its own in the cache."""

    def explained(request: InferenceRequest) -> InferenceResponse:
        return raw_response(b'"why"' if request.explain else b'"what"', "application/json")

    gateway = gateway_with()
    gateway.torchserve.servables["m-2.0--loaded"] = explained
    for _ in range(2):
        assert (await ask(gateway, {"instances": [1]})).json() == {"predictions": "what"}
        assert (await ask(gateway, {"instances": [1]}, "m:explain")).json() == {"explanations": "why"}
    assert [request.explain for _, request, _ in gateway.torchserve.calls] == [False, True]


async def test_explain_of_a_model_without(gateway: SampleGateway) -> None:
    """A model of TF Serving has no explanations, which the error says; no server is asked."""
    status, error = await gateway.refused("POST", "/v1/models/iris:explain", {"instances": [[1, 2, 3, 4]]})
    assert (status, error) == (400, {"error": "Model 'iris' has no explanations: TF Serving gives none."})
    assert not gateway.tf_serving.calls


@pytest.mark.parametrize(
    ("path", "version"),
    [("m", "2.0"), ("m/versions/1.0", "1.0"), ("m/labels/stable", "1.0"), ("m/versions/2.0", "2.0")],
)
async def test_versions_and_labels(path: str, version: str) -> None:
    """A call goes to the version or label in its path, and without one to the default."""
    gateway = gateway_with()
    await ask(gateway, {"instances": [1]}, f"{path}:predict")
    assert [route.version for route, _, _ in gateway.torchserve.calls] == [version]


async def test_the_cache() -> None:
    """`x-cache` tells a miss, a hit, and that a client wanted it fresh; the same body by TorchServe's path is a hit."""
    gateway = gateway_with()
    answers = [await ask(gateway, {"instances": [1, 2]}, headers=headers) for headers in ((), (), PAST_CACHE)]
    assert [answer.header(b"x-cache") for answer in answers] == ["MISS", "HIT", "BYPASS"]
    raw = await gateway.rest("POST", "/predictions/m", b"[1,2]", [(b"content-type", b"application/json")])
    assert (raw.header(b"x-cache"), raw.body) == ("HIT", b"[0.10, 7]")


@pytest.mark.parametrize(
    ("wire", "body", "says"),
    [
        (Wire.AUTO, b"{", "not JSON"),
        (Wire.AUTO, [1], "has to be a JSON object"),
        (Wire.AUTO, {"rows": [1]}, "it is asked with KServe V1's 'instances', or with 'inputs'"),
        (Wire.AUTO, {"rows": [1]}, "POST /v2/models/m/infer and /predictions/m"),
        (Wire.AUTO, {"instances": 1}, "'instances' has to be a list"),
        (Wire.AUTO, {"instances": []}, "at least one instance"),
        (Wire.AUTO, {"instances": [b64(b"a"), b64(b"b")]}, "set 'wire: json' or 'wire: kserve_v1'"),
        (Wire.AUTO, {"instances": [{"image": b64(b"a")}]}, "set 'wire: json' or 'wire: kserve_v1'"),
        (Wire.AUTO, {"instances": [{"b64": "?"}]}, "not base64"),
        (Wire.AUTO, {"instances": [{"b64": "ä"}]}, "not base64"),
        (Wire.RAW, {"instances": [1]}, "takes one body ('wire: raw' in its policy)"),
        (Wire.RAW, {"instances": ["a", "b"]}, "takes one body ('wire: raw' in its policy)"),
        (Wire.KSERVE_V2, {"instances": [1]}, "use POST /v2/models/m/infer"),
    ],
)
async def test_what_has_no_form(wire: Wire, body: Any, says: str) -> None:
    """What the handler cannot be asked is 400, says what would work, and reaches no model server."""
    gateway = gateway_with(wire)
    status, error = await gateway.refused("POST", "/v1/models/m:predict", body)
    assert (status, says in error["error"]) == (400, True), error
    assert not gateway.torchserve.calls


@pytest.mark.parametrize("body", [b"\x89PNG", b"", b"plain text"])
async def test_an_answer_that_is_no_json(body: bytes) -> None:
    """An answer that is no JSON cannot be a prediction: 406, and the path that gives it as it is."""
    gateway = gateway_with()
    gateway.torchserve.servables["m-2.0--loaded"] = answering(body, "image/png")
    status, error = await gateway.refused("POST", "/v1/models/m:predict", {"instances": [1]})
    assert (status, "'image/png'" in error["error"], "/predictions/m" in error["error"]) == (406, True, True)


async def test_an_answer_that_is_not_of_the_envelope() -> None:
    """A handler whose policy says `kserve_v1` and that answers otherwise is the model's fault: 500."""
    status, error = await gateway_with(Wire.KSERVE_V1).refused("POST", "/v1/models/m:predict", {"instances": [1]})
    assert (status, "not of the form 'kserve_v1'" in error["error"]) == (500, True)
