"""TorchServe over REST, as its clients see it."""

from typing import Any

import pytest

from portico.codecs.handler import raw_response
from portico.errors import Overloaded
from portico.inference import Form, InferenceRequest, InferenceResponse, unpack_bytes
from sample_gateway import FRESH, LIMIT, SampleGateway

PNG = b"\x89PNG\r\n\x1a\n\0\xff"
IS_PNG = [(b"content-type", b"image/png")]


async def refusal(gateway: SampleGateway, path: str, body: Any = b"") -> tuple[int, str, str]:
    """(status, TorchServe's type of error, message)."""
    status, answer = await gateway.refused("POST", f"/predictions/{path}", body)
    assert answer.keys() == {"code", "type", "message"}
    assert answer["code"] == status
    return status, answer["type"], answer["message"]


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_predictions(gateway: SampleGateway, method: str) -> None:
    """The handler gets the body as it is, with its content type, and the client the handler's answer as it is."""
    answer = await gateway.rest(method, "/predictions/digits", PNG, IS_PNG)
    assert answer.status == 200
    assert answer.body == b'{"digit": 7, "probabilities": [0.25, 0.75]}'
    assert answer.header(b"content-type") == "application/json"
    ((route, request, _),) = gateway.torchserve.calls
    assert list(unpack_bytes(request.inputs[0].data)) == [PNG]
    assert (request.form, request.content_type) == (Form.BODY, "image/png")
    assert route.version == "1.1"


async def test_a_version(gateway: SampleGateway) -> None:
    """A call that names a version is answered by it."""
    assert (await gateway.rest("POST", "/predictions/digits/1.0", b"x")).status == 200
    assert [route.version for route, _, _ in gateway.torchserve.calls] == ["1.0"]


async def test_no_content_type(gateway: SampleGateway) -> None:
    """A body that does not say what it is counts as bytes."""
    await gateway.rest("POST", "/predictions/digits", b"x")
    assert gateway.torchserve.calls[0][1].content_type == "application/octet-stream"


async def test_an_answer_in_another_form(gateway: SampleGateway) -> None:
    """An answer that is no JSON goes through as it is."""
    answer = await gateway.rest("POST", "/predictions/plain", b"x")
    assert answer.body.decode() == "größer"


async def test_an_answer_whose_content_type_is_none(gateway: SampleGateway) -> None:
    """A handler's content type that is no ASCII is left out, and its answer goes through; from the cache as well."""
    gateway.torchserve.servables["plain-1.0--loaded"] = lambda request: raw_response(b"x", "größe/\U0001f600")
    for expected in ("MISS", "HIT"):
        answer = await gateway.rest("POST", "/predictions/plain", b"x")
        assert (answer.status, answer.body, answer.header(b"x-cache")) == (200, b"x", expected)
        assert answer.header(b"content-type").isascii()


async def test_the_cache(gateway: SampleGateway) -> None:
    """`x-cache` tells a miss, a hit, and a client that wanted it fresh; the content type is part of the question."""
    headers = [IS_PNG, IS_PNG, [*IS_PNG, *FRESH], [(b"content-type", b"image/jpeg")]]
    answers = [await gateway.rest("POST", "/predictions/digits", PNG, entry) for entry in headers]
    assert [answer.header(b"x-cache") for answer in answers] == ["MISS", "HIT", "BYPASS", "MISS"]
    assert {answer.body for answer in answers} == {answers[0].body}
    assert {answer.header(b"content-type") for answer in answers} == {"application/json"}


@pytest.mark.parametrize(
    ("path", "status", "kind", "says"),
    [
        ("digit", 404, "ModelNotFoundException", "Did you mean digits?"),
        ("digits/9.9", 404, "ModelNotFoundException", "Versions of model 'digits': 1.0, 1.1"),
        ("away", 503, "ServiceUnavailableException", "was restarted. Try again"),
        ("refused", 503, "ServiceUnavailableException", "refused is failed for a reason"),
        ("damaged", 503, "ServiceUnavailableException", "damaged is quarantined for a reason"),
    ],
)
async def test_models_that_cannot_answer(gateway: SampleGateway, path: str, status: int, kind: str, says: str) -> None:
    """A model that is not there is 404, one that is not ready 503 with the reason, in TorchServe's form."""
    found = await refusal(gateway, path)
    assert found[:2] == (status, kind)
    assert says in found[2]


async def test_bad_input(gateway: SampleGateway) -> None:
    """What the handler cannot read is 400 with the handler's words."""
    status, kind, message = await refusal(gateway, "digits", b"?")
    assert (status, kind) == (400, "BadRequestException")
    assert "neither JSON nor a PNG" in message


async def test_too_large(gateway: SampleGateway) -> None:
    """A body over the limit is 413 with the limit."""
    status, kind, message = await refusal(gateway, "digits", bytes(LIMIT + 1))
    assert (status, kind, f"{LIMIT} bytes" in message) == (413, "TooLongFrameException", True)


async def test_failures_behind(gateway: SampleGateway) -> None:
    """A model server that is gone is 503, one that hangs 504."""
    gateway.torchserve.go_down()
    assert (await refusal(gateway, "digits"))[:2] == (503, "ServiceUnavailableException")
    slow = SampleGateway(timeout=0.05)
    slow.torchserve.hang()
    assert (await refusal(slow, "digits"))[0] == 504


async def test_a_queue_that_is_full(gateway: SampleGateway) -> None:
    """A model server that takes no more work is 429, and its reason is told."""

    def full(request: InferenceRequest) -> InferenceResponse:
        raise Overloaded("the queue is full")

    gateway.torchserve.servables["digits-1.1--loaded"] = full
    assert await refusal(gateway, "digits") == (429, "ServiceUnavailableException", "the queue is full")


async def test_a_model_that_takes_tensors(gateway: SampleGateway) -> None:
    """A model of TF Serving, which takes no raw body, is refused with what it takes."""
    status, kind, message = await refusal(gateway, "iris", b"[1]")
    assert (status, kind) == (400, "BadRequestException")
    assert "'measurements' (FP32 [-1, 4])" in message


async def test_ping(gateway: SampleGateway) -> None:
    """A ping is answered as TorchServe answers it, whatever its models do."""
    gateway.torchserve.go_down()
    answer = await gateway.rest("GET", "/ping")
    assert (answer.status, answer.json()) == (200, {"status": "Healthy"})


@pytest.mark.parametrize(
    ("method", "path", "allow"), [("DELETE", "/predictions/digits", "POST, PUT, GET"), ("POST", "/ping", "GET")]
)
async def test_wrong_methods(gateway: SampleGateway, method: str, path: str, allow: str) -> None:
    """Another method is 405 in TorchServe's form, with those that are allowed."""
    answer = await gateway.rest(method, path)
    assert (answer.status, answer.header(b"allow")) == (405, allow)
    assert (answer.json()["code"], answer.json()["type"]) == (405, "MethodNotAllowedException")
