"""TorchServe over REST, as its clients see it."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from asgi_client import Event, Exchange
from fakes import in_pieces
from portico.codecs.handler import raised, raw_response
from portico.edges.rest import BrokenOff
from portico.errors import HandlerAnswer, InferenceFailed, Overloaded
from portico.inference import Form, InferenceRequest, InferenceResponse, Tensor, unpack_bytes
from portico.routing import RouteTable, Server, Signature, State, TensorSpec
from portico.wire import torchserve_pb2 as ts
from sample_gateway import LIMIT, PAST_CACHE, SampleGateway, model, tensor

READY = State.READY

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


@pytest.mark.parametrize("path", ["/predictions/twice", "/v1/models/twice:predict"])
async def test_a_signature_by_its_name(path: str) -> None:
    """A body of `:predict` may name a signature, by TorchServe's path as by TF Serving's; one that is none is 400."""
    y = TensorSpec("y", "FP32", (-1,))
    signatures = {name: Signature((TensorSpec("x", "FP32", (-1,)),), (y,)) for name in ("serving_default", "triple")}
    gateway = SampleGateway(table=RouteTable({"twice": model("twice", Server.TF_SERVING, {"1": READY}, signatures)}))
    gateway.tf_serving.servables = {
        "twice-1--loaded": lambda request: InferenceResponse(
            (tensor("y", "FP32", "<f4", [3.0 if request.signature == "triple" else 1.0]),)
        )
    }
    for name, value in (("triple", 3.0), ("", 1.0)):
        for form, key in (("instances", "predictions"), ("inputs", "outputs")):
            answer = await gateway.rest("POST", path, json.dumps({form: [1], "signature_name": name}).encode())
            assert answer.json() == ([value] if path.startswith("/predictions") else {key: [value]})
    for name, says in (
        ("nope", "no signature 'nope'. Its signatures: 'serving_default', 'triple'"),
        (1, "a string"),
    ):
        status, error = await gateway.refused("POST", path, {"instances": [1], "signature_name": name})
        assert (status, says in (error.get("message") or error["error"])) == (400, True)


CURLS = (b"content-type", b"application/x-www-form-urlencoded")
TWO = (
    b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n[1]\r\n'
    b'--b\r\nContent-Disposition: form-data; name="b"; filename="b.json"\r\n\r\n[2]\r\n--b--\r\n'
)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (CURLS, b'{"a": [1], "b": [2]}'),
        (CURLS, b'{"inputs": {"a": [1], "b": [2]}}'),
        (CURLS, b"a=[1]&b=%5B2%5D"),
        ((b"content-type", b"multipart/form-data; boundary=b"), TWO),
    ],
)
async def test_forms_to_a_model_that_takes_tensors(
    gateway: SampleGateway, content_type: tuple[bytes, bytes], body: bytes
) -> None:
    """JSON that curl calls a form is read as JSON, and the parts of a form are the inputs of their names."""
    assert (await gateway.rest("POST", "/predictions/sum", body, [content_type])).json() == [3]


async def test_explanations_of_a_model_without(gateway: SampleGateway) -> None:
    """A model of TF Serving has no explanations, which the error says in the words of `:explain`."""
    status, error = await gateway.refused("POST", "/explanations/half", b"[1]")
    assert (status, error["message"]) == (400, "Model 'half' has no explanations: TF Serving gives none.")
    assert not gateway.tf_serving.calls


async def test_an_output_that_is_no_text(gateway: SampleGateway) -> None:
    """An output that JSON has no form for is 406, in TF Serving's form too, with the ways that have one."""
    gateway.tf_serving.servables["text-1--loaded"] = lambda request: InferenceResponse(
        (Tensor("upper", "BYTES", (1,), b"\1\0\0\0\xff"),)
    )
    for path, key in (("/predictions/text", "message"), ("/v1/models/text:predict", "error")):
        status, error = await gateway.refused("POST", path, {"instances": ["a"]})
        assert status == 406
        assert "'upper' is not UTF-8 text" in error[key]
        assert "POST /v2/models/<name>/infer with 'binary_data': true" in error[key]


@pytest.mark.parametrize("path", ["digits", "digits/1.0", "iris"])
async def test_the_description_of_a_model(gateway: SampleGateway, path: str) -> None:
    """OPTIONS of a model's path gives an OpenAPI document of it; of one that is not there it is 404."""
    document = (await gateway.rest("OPTIONS", f"/predictions/{path}")).json()
    name = path.split("/")[0]
    assert document["info"]["title"] == f"RESTful API for: {name}"
    verbs = ("predictions",) if name == "iris" else ("predictions", "explanations")
    assert list(document["paths"]) == [f"/{verb}/{name}" for verb in verbs]
    status, error = await gateway.refused("OPTIONS", "/predictions/digit")
    assert (status, error["type"]) == (404, "ModelNotFoundException")


async def test_a_handler_that_raises(gateway: SampleGateway) -> None:
    """TorchServe's clients read its own words for a handler's error, others which model failed and where it says it."""

    def raises(request: InferenceRequest) -> InferenceResponse:
        error = InferenceFailed(raised("plain"))
        error.answer = HandlerAnswer(503)
        raise error

    gateway.torchserve.servables["plain-1.0--loaded"] = raises
    assert await refusal(gateway, "plain") == (503, "InternalServerException", "Prediction failed")
    request = ts.PredictionsRequest(model_name="plain", input={"data": b"x"})
    told = await gateway.grpc("/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions", request)
    assert told.grpc_status == (14, "Prediction failed")
    for path, body in (
        ("/v1/models/plain:predict", {"instances": [1]}),
        ("/v2/models/plain/infer", {"inputs": [{"name": "x", "datatype": "INT8", "shape": [1], "data": [1]}]}),
    ):
        status, error = await gateway.refused("POST", path, body)
        assert status == 500
        assert error["error"] == "The handler of model 'plain' raised an error; TorchServe's log has its traceback."


async def test_a_model_that_takes_texts(gateway: SampleGateway) -> None:
    """Where the one input is BYTES, a body that is not called JSON is its one element."""
    answer = await gateway.rest("POST", "/predictions/text", b"grape")
    assert (answer.status, "raw_bytes" in answer.json(), answer.json()["upper"]) == (200, True, ["GRAPE"])


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        (b"pixels", b"image/png", "The body is not JSON"),
        (b"x=1&y=2", b"application/x-www-form-urlencoded", "There is no input 'x'."),
        (b"pixels", b"application/x-www-form-urlencoded", "-H 'content-type: application/json'"),
        (b"--b", b"multipart/form-data; boundary=b", "-H 'content-type: application/json'"),
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
    async with asyncio.timeout(10):  # the call is one that others might share: it is closed by its own task
        while gateway.routes._using:
            await asyncio.sleep(0.01)


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
