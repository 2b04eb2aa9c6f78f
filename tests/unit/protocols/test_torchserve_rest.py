"""TorchServe over REST, as its clients see it."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from asgi_client import Event, Exchange
from fakes import in_pieces
from portico.codecs.handler import raw_response
from portico.edges.rest import BrokenOff
from portico.errors import HandlerAnswer, InferenceFailed, Overloaded
from portico.inference import Form, InferenceRequest, InferenceResponse, unpack_bytes
from sample_gateway import LIMIT, PAST_CACHE, SampleGateway

PNG = b"\x89PNG\r\n\x1a\n\0\xff"
IS_PNG = [(b"content-type", b"image/png")]
JSON_TYPE = (b"content-type", b"application/json")


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
    """An answer that is no JSON goes through as it is, and gets no content type that the handler has not given."""
    answer = await gateway.rest("POST", "/predictions/plain", b"x")
    assert answer.body.decode() == "größer"
    assert answer.header(b"content-type") == ""


async def test_an_answer_whose_content_type_is_none(gateway: SampleGateway) -> None:
    """A handler's content type that is no ASCII is left out, and its answer goes through; from the cache as well."""
    gateway.torchserve.servables["plain-1.0--loaded"] = lambda request: raw_response(b"x", "größe/\U0001f600")
    for expected in ("MISS", "HIT"):
        answer = await gateway.rest("POST", "/predictions/plain", b"x")
        assert (answer.status, answer.body, answer.header(b"x-cache")) == (200, b"x", expected)
        assert answer.header(b"content-type") == ""


async def test_the_cache(gateway: SampleGateway) -> None:
    """`x-cache` tells a miss, a hit, and a client that wanted it fresh; the content type is part of the question."""
    headers = [IS_PNG, IS_PNG, [*IS_PNG, *PAST_CACHE], [(b"content-type", b"image/jpeg")]]
    answers = [await gateway.rest("POST", "/predictions/digits", PNG, entry) for entry in headers]
    assert [answer.header(b"x-cache") for answer in answers] == ["MISS", "HIT", "BYPASS", "MISS"]
    assert {answer.body for answer in answers} == {answers[0].body}
    assert {answer.header(b"content-type") for answer in answers} == {"application/json"}


@pytest.mark.parametrize(
    ("path", "status", "kind", "says"),
    [
        (
            "digit",
            404,
            "ModelNotFoundException",
            "Model not found: digit. There is no model named 'digit'. Did you mean digits?",
        ),
        (
            "digits/9.9",
            404,
            "ModelVersionNotFoundException",
            "Model version: 9.9 does not exist for model: digits. Versions of model 'digits': 1.0, 1.1",
        ),
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


ROW = [[0.25, 0.5, 0.125, 1.0]]


@pytest.mark.parametrize("body", [ROW, {"measurements": ROW}, {"inputs": ROW}, {"instances": ROW}])
async def test_a_model_that_takes_tensors(gateway: SampleGateway, body: Any) -> None:
    """A model of TF Serving is called with JSON: of its one input, of an object of them, or as TF Serving has it."""
    answer = await gateway.rest("POST", "/predictions/iris/2", json.dumps(body).encode(), [JSON_TYPE])
    assert answer.json() == {"probabilities": [[0.25, 0.5, 0.125]], "species": [1]}
    assert answer.header(b"x-cache") == "MISS"


async def test_a_model_that_takes_texts(gateway: SampleGateway) -> None:
    """Where the one input is BYTES, a body that is not called JSON is its one element."""
    answer = await gateway.rest("POST", "/predictions/text", b"grape")
    assert (answer.status, "raw_bytes" in answer.json(), answer.json()["upper"]) == (200, True, ["GRAPE"])


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        (b"pixels", b"image/png", "The body is not JSON"),
        (b"x=1", b"application/x-www-form-urlencoded", "A form has no tensors."),
        (b"[1]", b"application/json", "[1]"),
    ],
)
async def test_what_is_no_tensor(gateway: SampleGateway, body: bytes, content_type: bytes, says: str) -> None:
    """Anything else is refused with what the model takes."""
    answer = await gateway.rest("POST", "/predictions/iris", body, [(b"content-type", content_type)])
    assert (answer.status, answer.json()["type"]) == (400, "BadRequestException")
    assert says in answer.json()["message"]
    assert "'measurements' (FP32 [-1, 4])" in answer.json()["message"] or "FP32 [-1, 4]" in answer.json()["message"]


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


@pytest.mark.parametrize("path", ["/predictions", "/predictions/", "/explanations"])
async def test_no_model(gateway: SampleGateway, path: str) -> None:
    """A path without a model is 404 in TorchServe's form and words."""
    status, answer = await gateway.refused("POST", path)
    assert (status, answer["code"], answer["type"]) == (404, 404, "ResourceNotFoundException")
    assert answer["message"].startswith("Requested resource is not found")


async def test_explanations(gateway: SampleGateway) -> None:
    """An explanation is asked for as such, of the version in the path, and is not mixed up with the prediction."""
    for path in ("/explanations/digits", "/explanations/digits/1.0", "/predictions/digits"):
        assert (await gateway.rest("POST", path, PNG, IS_PNG)).header(b"x-cache") == "MISS"
    asked = [(route.version, request.explain) for route, request, _ in gateway.torchserve.calls]
    assert asked == [("1.1", True), ("1.0", True), ("1.1", False)]
    status, answer = await gateway.refused("POST", "/explanations/digit")
    assert (status, answer["type"]) == (404, "ModelNotFoundException")


@pytest.mark.parametrize(
    ("path", "version", "told"),
    [
        ("digits/", "1.1", ""),
        ("digits/1.0/", "1.0", ""),
        ("digits/1.0/a/b%20c", "1.0", "a/b c"),
        ("digits//a", "1.1", "a"),
        ("digits?x=1", "1.1", ""),
    ],
)
async def test_further_path(gateway: SampleGateway, path: str, version: str, told: str) -> None:
    """What follows the version is told to the handler; a query is not, as TorchServe does not tell it either."""
    await gateway.rest("POST", f"/predictions/{path}", b"x")
    ((route, request, _),) = gateway.torchserve.calls
    assert (route.version, request.url_path) == (version, told)


async def test_a_query_is_no_other_question(gateway: SampleGateway) -> None:
    """A query makes no difference to the handler, and so none to the cache; a further path does."""
    paths = ["digits/1.0", "digits/1.0?x=1", "digits/1.0/x"]
    answers = [await gateway.rest("POST", f"/predictions/{path}", b"x") for path in paths]
    assert [answer.header(b"x-cache") for answer in answers] == ["MISS", "HIT", "MISS"]


FORM = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b--\r\n'


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(FORM, "multipart/form-data; boundary=b"), (b"a=1&b=%20", "application/x-www-form-urlencoded"), (b"[1]", "a/b")],
)
async def test_forms(gateway: SampleGateway, body: bytes, content_type: str) -> None:
    """A form goes to TorchServe as it is, which takes it apart."""
    await gateway.rest("POST", "/predictions/plain", body, [(b"content-type", content_type.encode())])
    ((_, request, _),) = gateway.torchserve.calls
    assert list(unpack_bytes(request.inputs[0].data)) == [body]
    assert (request.form, request.content_type) == (Form.BODY, content_type)


def failing(answer: HandlerAnswer) -> Callable[[InferenceRequest], InferenceResponse]:
    """A handler that answers with a status of its own."""

    def model(request: InferenceRequest) -> InferenceResponse:
        error = InferenceFailed("the handler's words")
        error.answer = answer
        raise error

    return model


async def test_a_handlers_own_status(gateway: SampleGateway) -> None:
    """A status, body and content type of the handler's choice reach the client as they are, and are not kept."""
    gateway.torchserve.servables["plain-1.0--loaded"] = failing(HandlerAnswer(503, "text/mine", b"tired \xff"))
    for _ in range(2):
        answer = await gateway.rest("POST", "/predictions/plain", b"x")
        assert (answer.status, answer.header(b"content-type"), answer.body) == (503, "text/mine", b"tired \xff")
    assert len(gateway.torchserve.calls) == 2


async def test_a_handlers_own_status_alone(gateway: SampleGateway) -> None:
    """The status of a handler's exception reaches the client in TorchServe's form, with the handler's words."""
    gateway.torchserve.servables["plain-1.0--loaded"] = failing(HandlerAnswer(418))
    assert await refusal(gateway, "plain") == (418, "InternalServerException", "the handler's words")


async def test_a_handlers_own_status_in_other_protocols(gateway: SampleGateway) -> None:
    """Other protocols give the handler's words in their own form, under the status that they have for it."""
    gateway.torchserve.servables["plain-1.0--loaded"] = failing(HandlerAnswer(418, "text/mine", b"tea"))
    tensor = {"name": "x", "datatype": "BYTES", "shape": [1], "data": ["a"]}
    status, answer = await gateway.refused("POST", "/v2/models/plain/infer", {"inputs": [tensor]})
    assert (status, answer["error"]) == (500, "the handler's words")


async def test_a_status_of_success(gateway: SampleGateway) -> None:
    """Another status of success reaches the client, and its answer is not kept."""
    gateway.torchserve.servables["plain-1.0--loaded"] = lambda request: raw_response(b"queued", "text/a", status=202)
    for _ in range(2):
        answer = await gateway.rest("POST", "/predictions/plain", b"x")
        assert (answer.status, answer.body) == (202, b"queued")
    assert len(gateway.torchserve.calls) == 2


async def test_pieces(gateway: SampleGateway) -> None:
    """An answer in pieces reaches the client piece by piece, without a length, and is not kept."""
    gateway.torchserve.servables["plain-1.0--loaded"] = lambda request: in_pieces(b"one ", b"two ", b"three")
    for _ in range(2):
        answer = await gateway.rest("POST", "/predictions/plain", b"x")
        bodies = [event["body"] for event in answer.events if event["type"] == "http.response.body"]
        assert (answer.status, bodies) == (200, [b"one ", b"two ", b"three", b""])
        assert (answer.header(b"content-length"), answer.header(b"x-cache")) == ("", "BYPASS")
    assert len(gateway.torchserve.calls) == 2


class After(Exchange):
    """A call of `plain`, and something that happens when the first piece of the answer has come."""

    def __init__(self, happens: Callable[[], None], method: str = "POST") -> None:
        super().__init__(method, "/predictions/plain", b"x", (), eager=False)
        self._happens = happens

    async def send(self, event: Event) -> None:
        await super().send(event)
        if event["type"] == "http.response.body" and event["body"]:
            self._happens()


async def test_pieces_come_when_they_are_there(gateway: SampleGateway) -> None:
    """The first piece is sent although the second has not come from the model server."""
    gateway.torchserve.servables["plain-1.0--loaded"] = lambda request: in_pieces(b"one", b"two")
    first = asyncio.Event()

    def come() -> None:
        gateway.torchserve.hang()
        first.set()

    exchange = After(come)
    running = asyncio.create_task(exchange.run(gateway.rest_edge))
    await first.wait()
    assert [event.get("body") for event in exchange.answer.events] == [None, b"one"]
    gateway.torchserve.go_on()
    assert (await running).body == b"onetwo"


async def test_pieces_that_break_off(gateway: SampleGateway) -> None:
    """When the model server goes between two pieces the answer has no end, and the ASGI server is told to break it."""
    gateway.torchserve.servables["plain-1.0--loaded"] = lambda request: in_pieces(b"one", b"two")
    exchange = After(gateway.torchserve.go_down)
    with pytest.raises(BrokenOff):
        await exchange.run(gateway.rest_edge)
    assert exchange.answer.events[-1] == {"type": "http.response.body", "body": b"one", "more_body": True}
    assert not gateway.routes._using


async def test_a_client_that_leaves_between_pieces(gateway: SampleGateway) -> None:
    """When the client goes between two pieces, the model server is not asked for more."""
    gateway.torchserve.servables["plain-1.0--loaded"] = lambda request: in_pieces(b"one", b"two")

    def leave() -> None:
        gateway.torchserve.hang()
        exchange.leave()

    exchange = After(leave)
    await exchange.run(gateway.rest_edge)
    assert gateway.torchserve.cancelled == 1
    assert not gateway.routes._using


async def test_a_client_that_leaves_before_the_first_piece(gateway: SampleGateway) -> None:
    """When the client is gone before anything is sent, the call of the model server is closed all the same."""
    gateway.torchserve.servables["plain-1.0--loaded"] = lambda request: exchange.leave() or in_pieces(b"one", b"two")
    exchange = After(lambda: None)
    assert (await exchange.run(gateway.rest_edge)).events == []
    assert not gateway.routes._using


async def test_the_head_of_pieces(gateway: SampleGateway) -> None:
    """HEAD gives the headers of an answer in pieces, and closes the call of the model server."""
    gateway.torchserve.servables["plain-1.0--loaded"] = lambda request: in_pieces(b"one", b"two")
    answer = await After(lambda: None, "HEAD").run(gateway.rest_edge)
    assert (answer.status, answer.body, answer.header(b"x-cache")) == (200, b"", "BYPASS")
    assert not gateway.routes._using


async def test_a_sequence(gateway: SampleGateway) -> None:
    """A request of a sequence is refused, with what to do instead."""
    headers = [(b"ts_request_sequence_id", b"s")]
    status, answer = await gateway.refused("POST", "/predictions/digits", b"x", headers)
    assert (status, answer["type"], "ts_request_sequence_id" in answer["message"]) == (400, "BadRequestException", True)
    assert not gateway.torchserve.calls


async def test_the_description(gateway: SampleGateway) -> None:
    """`OPTIONS /` gives an OpenAPI document of the endpoints, each of which is there; another method is not its own."""
    document = (await gateway.rest("OPTIONS", "/")).json()
    assert document["openapi"].startswith("3.0")
    assert document == (await gateway.rest("GET", "/api-description")).json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert {"operationId", "responses"} <= operation.keys()
            named = path.replace("{model_name}", "digits").replace("{model_version}", "1.0")
            assert (await gateway.rest(method.upper(), named, b"x")).status == 200
    assert (await gateway.rest("GET", "/")).status != 405
