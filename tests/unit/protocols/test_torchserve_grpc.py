"""TorchServe over gRPC, as its clients see it."""

import json
from typing import Any

import pytest

from asgi_client import Answer
from portico.inference import Form, InferenceResponse, Tensor, unpack_bytes
from portico.wire import torchserve_pb2 as ts
from sample_gateway import FRESH, SampleGateway, parsed

SERVICE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/"
INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION, UNIMPLEMENTED, UNAVAILABLE = 3, 5, 9, 12, 14


async def predictions(
    gateway: SampleGateway, model: str, version: str = "", headers: Any = (), **parts: bytes
) -> Answer:
    message = ts.PredictionsRequest(model_name=model, model_version=version, input=parts)
    return await gateway.grpc(SERVICE + "Predictions", message, headers)


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
    answers = [await predictions(gateway, "digits", headers=headers, data=b"x") for headers in ((), (), FRESH)]
    answers.append(await predictions(gateway, "digits", body=b"x"))
    assert [answer.header(b"x-cache") for answer in answers] == ["MISS", "HIT", "BYPASS", "MISS"]
    assert {answer.messages[0] for answer in answers} == {answers[0].messages[0]}


@pytest.mark.parametrize(
    ("model", "version", "code", "says"),
    [
        ("digit", "", NOT_FOUND, "Did you mean digits?"),
        ("", "", NOT_FOUND, "no model named ''"),
        ("digits", "9.9", NOT_FOUND, "Versions of model 'digits': 1.0, 1.1"),
        ("refused", "", UNAVAILABLE, "refused is failed for a reason"),
        ("damaged", "", UNAVAILABLE, "damaged is quarantined for a reason"),
        ("iris", "", INVALID_ARGUMENT, "'measurements' (FP32 [-1, 4])"),
    ],
)
async def test_calls_that_cannot_be_answered(
    gateway: SampleGateway, model: str, version: str, code: int, says: str
) -> None:
    """Unknown is NOT_FOUND, not ready UNAVAILABLE, a model that takes tensors INVALID_ARGUMENT; each says why."""
    found, text = (await predictions(gateway, model, version, data=b"x")).grpc_status
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


async def test_ping(gateway: SampleGateway) -> None:
    """A ping is answered with TorchServe's JSON."""
    health = parsed(await gateway.grpc(SERVICE + "Ping", b""), ts.TorchServeHealthResponse).health
    assert json.loads(health) == {"status": "Healthy"}


async def test_methods_that_are_not_there(gateway: SampleGateway) -> None:
    """A method that the gateway does not have is UNIMPLEMENTED, and named."""
    code, text = (await gateway.grpc(SERVICE + "Nothing", b"")).grpc_status
    assert (code, "Nothing" in text) == (UNIMPLEMENTED, True)
