"""TorchServe over gRPC, as its clients see it."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from asgi_client import Answer, Event, Exchange
from fakes import in_pieces
from portico.errors import HandlerAnswer, InvalidRequest
from portico.inference import Form, InferenceRequest, InferenceResponse, Tensor, unpack_bytes
from portico.wire import torchserve_pb2 as ts
from sample_gateway import PAST_CACHE, SampleGateway, parsed

SERVICE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/"
INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION, UNIMPLEMENTED, UNAVAILABLE = 3, 5, 9, 12, 14


async def predictions(
    gateway: SampleGateway,
    model: str,
    version: str = "",
    headers: Any = (),
    method: str = "Predictions",
    **parts: bytes,
) -> Answer:
    message = ts.PredictionsRequest(model_name=model, model_version=version, input=parts)
    return await gateway.grpc(SERVICE + method, message, headers)


def given(answer: Answer) -> list[bytes]:
    """The predictions of a call that ended with OK."""
    return [ts.PredictionResponse.FromString(message).prediction for message in answer.messages]


async def test_predictions(gateway: SampleGateway) -> None:
    """The handler gets the parts by name, byte for byte, and the client the handler's answer as it is."""
    answer = await predictions(gateway, "digits", image=b"\x89PNG\xff", size=b"8")
    assert parsed(answer, ts.PredictionResponse).prediction == b'{"digit": 7, "probabilities": [0.25, 0.75]}'
    ((route, request, _),) = gateway.torchserve.calls
    assert {part.name: list(unpack_bytes(part.data)) for part in request.inputs} == {
        "image": [b"\x89PNG\xff"],
        "size": [b"8"],
    }
    assert all(part.check() for part in request.inputs)
    assert request.form is Form.PARTS
    assert route.version == "1.1"


async def test_a_version(gateway: SampleGateway) -> None:
    """A call that names a version is answered by it."""
    assert (await predictions(gateway, "digits", "1.0", data=b"x")).grpc_status[0] == 0
    assert [route.version for route, _, _ in gateway.torchserve.calls] == ["1.0"]


async def test_the_cache(gateway: SampleGateway) -> None:
    """`x-cache` in the initial metadata tells a miss, a hit, and a wish for a fresh answer; other parts are a miss."""
    answers = [await predictions(gateway, "digits", headers=headers, data=b"x") for headers in ((), (), PAST_CACHE)]
    answers.append(await predictions(gateway, "digits", body=b"x"))
    assert [answer.header(b"x-cache") for answer in answers] == ["MISS", "HIT", "BYPASS", "MISS"]
    assert {answer.messages[0] for answer in answers} == {answers[0].messages[0]}


@pytest.mark.parametrize(
    ("model", "version", "code", "says"),
    [
        ("digit", "", NOT_FOUND, "Model not found: digit. There is no model named 'digit'. Did you mean digits?"),
        ("", "", INVALID_ARGUMENT, "Parameter model_name is required."),
        (
            "digits",
            "9.9",
            NOT_FOUND,
            "Model version: 9.9 does not exist for model: digits. Versions of model 'digits': 1.0, 1.1",
        ),
        ("refused", "", UNAVAILABLE, "refused is failed for a reason"),
        ("damaged", "", UNAVAILABLE, "damaged is quarantined for a reason"),
        ("iris", "", INVALID_ARGUMENT, "takes tensors, as JSON: 'measurements' (FP32 [-1, 4])"),
    ],
)
async def test_calls_that_cannot_be_answered(
    gateway: SampleGateway, model: str, version: str, code: int, says: str
) -> None:
    """Unknown is NOT_FOUND in TorchServe's words, not ready UNAVAILABLE, a model that takes tensors INVALID_ARGUMENT;
    each says why. It is the same for `StreamPredictions`."""
    for method in ("Predictions", "StreamPredictions"):
        found, text = (await predictions(gateway, model, version, method=method, data=b"x")).grpc_status
        assert found == code
        assert says in text


async def test_bad_input(gateway: SampleGateway) -> None:
    """What the handler cannot read is INVALID_ARGUMENT with its words; so is what is no message."""
    code, text = (await predictions(gateway, "digits", data=b"?")).grpc_status
    assert (code, "neither JSON nor a PNG" in text) == (INVALID_ARGUMENT, True)
    code, text = (await gateway.grpc(SERVICE + "Predictions", b"\xff")).grpc_status
    assert (code, "no PredictionsRequest" in text) == (INVALID_ARGUMENT, True)


async def test_an_answer_without_a_form(gateway: SampleGateway) -> None:
    """An answer in tensors has no form as one body: FAILED_PRECONDITION, with the protocol that has one."""
    tensor = Tensor("y", "INT8", (), b"a")
    gateway.torchserve.servables["plain-1.0--loaded"] = lambda request: InferenceResponse((tensor,))
    code, text = (await predictions(gateway, "plain", data=b"x")).grpc_status
    assert (code, "POST /v2/models/<name>/infer" in text) == (FAILED_PRECONDITION, True)


async def test_a_server_that_is_gone(gateway: SampleGateway) -> None:
    """A model server that is gone is UNAVAILABLE."""
    gateway.torchserve.go_down()
    assert (await predictions(gateway, "digits", data=b"x")).grpc_status[0] == UNAVAILABLE


def failing(status: int, body: bytes | None) -> Callable[[InferenceRequest], InferenceResponse]:
    """A handler that answers with a status of its own."""

    def model(request: InferenceRequest) -> InferenceResponse:
        error = InvalidRequest("the handler's words")
        error.answer = HandlerAnswer(status, "text/mine", body)
        raise error

    return model


@pytest.mark.parametrize("method", ["Predictions", "StreamPredictions"])
async def test_a_handlers_own_body(gateway: SampleGateway, method: str) -> None:
    """A handler's body with a status of failure comes as a prediction, as with TorchServe, and is not kept."""
    gateway.torchserve.servables["plain-1.0--loaded"] = failing(418, b"tea \xff")
    assert given(await predictions(gateway, "plain", method=method, data=b"x")) == [b"tea \xff"]
    assert not gateway.cache.entries


@pytest.mark.parametrize("method", ["Predictions", "StreamPredictions"])
@pytest.mark.parametrize(
    ("status", "code"),
    [
        *((400, 3), (401, 16), (403, 7), (404, 5), (409, 10), (413, 8), (416, 11), (418, 9), (429, 8), (499, 1)),
        *((500, 13), (501, 12), (503, 14), (504, 4), (507, 13)),
    ],
)
async def test_the_status_of_a_handlers_exception(gateway: SampleGateway, method: str, status: int, code: int) -> None:
    """It is the code that TorchServe makes of it, with the handler's words."""
    gateway.torchserve.servables["plain-1.0--loaded"] = failing(status, None)
    answer = await predictions(gateway, "plain", method=method, data=b"x")
    assert answer.grpc_status == (code, "the handler's words")


async def test_pieces(gateway: SampleGateway) -> None:
    """`StreamPredictions` gives a message for each piece, and none of them is kept; `Predictions` gives all as one."""
    gateway.torchserve.servables["plain-1.0--loaded"] = lambda request: in_pieces(b"one", b"", b"two")
    for _ in range(2):
        answer = await predictions(gateway, "plain", method="StreamPredictions", data=b"x")
        assert given(answer) == [b"one", b"", b"two"]
        assert answer.header(b"x-cache") == "BYPASS"
    assert given(await predictions(gateway, "plain", data=b"x")) == [b"onetwo"]
    assert len(gateway.torchserve.calls) == 3


async def test_a_stream_of_one(gateway: SampleGateway) -> None:
    """`StreamPredictions` of a model that answers whole gives that one answer, from the cache where it is there."""
    for expected in ("MISS", "HIT"):
        answer = await predictions(gateway, "digits", method="StreamPredictions", data=b"x")
        assert given(answer) == [b'{"digit": 7, "probabilities": [0.25, 0.75]}']
        assert answer.header(b"x-cache") == expected
    assert len(gateway.torchserve.calls) == 1


async def test_a_stream_that_breaks_off(gateway: SampleGateway) -> None:
    """When the model server goes between two pieces, the call ends in UNAVAILABLE after the first."""
    gateway.torchserve.servables["plain-1.0--loaded"] = lambda request: in_pieces(b"one", b"two")
    message = ts.PredictionsRequest(model_name="plain", input={"data": b"x"}).SerializeToString()
    exchange = After(SERVICE + "StreamPredictions", message, gateway.torchserve.go_down)
    answer = await exchange.run(gateway.grpc_edge)
    assert answer.grpc_status[0] == UNAVAILABLE
    assert answer.body[5:] == ts.PredictionResponse(prediction=b"one").SerializeToString()


async def test_a_client_that_leaves_a_stream(gateway: SampleGateway) -> None:
    """When the client goes between two pieces, the model server is not asked for more."""
    gateway.torchserve.servables["plain-1.0--loaded"] = lambda request: in_pieces(b"one", b"two")
    message = ts.PredictionsRequest(model_name="plain", input={"data": b"x"}).SerializeToString()

    def leave() -> None:
        gateway.torchserve.hang()
        exchange.leave()

    exchange = After(SERVICE + "StreamPredictions", message, leave)
    await exchange.run(gateway.grpc_edge)
    assert gateway.torchserve.cancelled == 1
    assert not gateway.routes._using


class After(Exchange):
    """A gRPC call with one message, and something that happens when its first answer has come."""

    def __init__(self, method: str, message: bytes, happens: Callable[[], None]) -> None:
        headers = [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
        super().__init__("POST", method, b"\0" + len(message).to_bytes(4, "big") + message, headers, eager=False)
        self._happens = happens

    async def send(self, event: Event) -> None:
        await super().send(event)
        if event["type"] == "http.response.body" and event["body"]:
            self._happens()


@pytest.mark.parametrize("method", ["Predictions", "StreamPredictions"])
async def test_a_sequence(gateway: SampleGateway, method: str) -> None:
    """A request of a sequence is refused, with what to do instead; so is TorchServe's method for them."""
    message = ts.PredictionsRequest(model_name="digits", sequence_id="s", input={"data": b"x"})
    code, text = (await gateway.grpc(SERVICE + method, message)).grpc_status
    assert (code, "sequence_id" in text) == (INVALID_ARGUMENT, True)
    code, text = (await gateway.grpc(SERVICE + "StreamPredictions2", message)).grpc_status
    assert (code, "sequence_id" in text) == (UNIMPLEMENTED, True)
    assert not gateway.torchserve.calls


async def test_ping(gateway: SampleGateway) -> None:
    """A ping is answered with TorchServe's JSON."""
    health = parsed(await gateway.grpc(SERVICE + "Ping", b""), ts.TorchServeHealthResponse).health
    assert json.loads(health) == {"status": "Healthy"}


async def test_methods_that_are_not_there(gateway: SampleGateway) -> None:
    """A method that the gateway does not have is UNIMPLEMENTED, and named."""
    code, text = (await gateway.grpc(SERVICE + "Nothing", b"")).grpc_status
    assert (code, "Nothing" in text) == (UNIMPLEMENTED, True)


@pytest.mark.parametrize("name", ["measurements", "data", "body"])
async def test_a_model_that_takes_tensors(gateway: SampleGateway, name: str) -> None:
    """A part is the JSON of the input of its name; the only part may have any name."""
    for method in ("Predictions", "StreamPredictions"):
        answer = await predictions(gateway, "iris", method=method, **{name: b"[[0.25, 0.5, 0.125, 1.0]]"})
        told = json.loads(parsed(answer, ts.PredictionResponse).prediction)
        assert told == {"probabilities": [[0.25, 0.5, 0.125]], "species": [1]}


async def test_a_model_that_takes_two_tensors(gateway: SampleGateway) -> None:
    """Each part is one of them; a part that is none is named."""
    answer = await predictions(gateway, "sum", a=b"[1, 2]", b=b"[10, 20]")
    assert json.loads(parsed(answer, ts.PredictionResponse).prediction) == [11, 22]
    code, text = (await predictions(gateway, "sum", a=b"[1]", c=b"[2]")).grpc_status
    assert (code, "There is no input 'c'." in text) == (INVALID_ARGUMENT, True)
