"""TorchServe's failures in our own terms, and what of them is the handler's own."""

import json
from http import HTTPStatus

import grpc
import pytest

from portico.backends.torchserve_failures import _STATUS, of_rest, raise_of_grpc
from portico.edges.status import STATUS
from portico.errors import (
    HandlerAnswer,
    InferenceFailed,
    InvalidRequest,
    Overloaded,
    PorticoError,
    ServableLost,
    TooLarge,
    Unavailable,
)
from portico.protocols.torchserve_errors import _code

SERVABLE = "digits--0123456789ab"


def own(kind: str) -> bytes:
    """An answer in TorchServe's own form."""
    return json.dumps({"code": 1, "type": kind, "message": "why"}).encode()


@pytest.mark.parametrize("status", [entry for entry in HTTPStatus if entry >= 300], ids=lambda status: str(int(status)))
@pytest.mark.parametrize("answer", [b"", own("InternalServerException"), b"[1]", b"upstream error", b"\xff"])
@pytest.mark.parametrize("from_torchserve", [True, False])
def test_every_status_is_one_of_our_errors(status: int, answer: bytes, from_torchserve: bool) -> None:
    """No status of HTTP is left without an error of the tree, and none without a text."""
    error = of_rest(HandlerAnswer(status, "", answer), from_torchserve, 1234, "digits")
    assert type(error) in STATUS
    assert str(error)


@pytest.mark.parametrize(
    ("status", "answer", "kind"),
    [
        (400, own("BadRequestException"), InvalidRequest),
        (404, own("ModelNotFoundException"), ServableLost),
        (404, own("ModelVersionNotFoundException"), ServableLost),
        (404, b"the handler found no such thing", InvalidRequest),
        (413, b"that is too much for me", InvalidRequest),
        (422, own("InternalServerException"), InvalidRequest),
        (429, b"slow down", Overloaded),
        (500, own("InternalServerException"), InferenceFailed),
        (503, own("InternalServerException"), InferenceFailed),
        (503, own("ServiceUnavailableException"), Unavailable),
        (503, b"the handler's own database is down", InferenceFailed),
        (507, own("InternalServerException"), InferenceFailed),
    ],
)
def test_what_an_answer_means(status: int, answer: bytes, kind: type[PorticoError]) -> None:
    """Who can do something about a failure decides what it is: the client, the one who waits, or nobody."""
    assert type(of_rest(HandlerAnswer(status, "", answer), True, 1234, "digits")) is kind


@pytest.mark.parametrize(
    ("status", "answer", "kind"),
    [
        (413, b"", TooLarge),
        (502, b"", Unavailable),
        (503, b'{"error": "torchserve_rest did not answer"}', Unavailable),
        (504, b"upstream request timeout", Unavailable),
    ],
)
def test_what_an_answer_of_envoy_means(status: int, answer: bytes, kind: type[PorticoError]) -> None:
    """What did not come from TorchServe is no answer of a handler, and names no part of the stack."""
    error = of_rest(HandlerAnswer(status, "", answer), False, 1234, "digits")
    assert (type(error), error.answer) == (kind, None)
    assert "torchserve_rest" not in str(error)


def test_a_handlers_own_words() -> None:
    """The body that a handler sends with a status of its own is what the client reads, and goes with it as it is."""
    answer = HandlerAnswer(418, "text/tea", "kein Kaffee, nur Tee ☕".encode())
    error = of_rest(answer, True, 1234, "digits")
    assert str(error) == "kein Kaffee, nur Tee ☕"
    assert error.answer is answer


def test_the_status_of_an_exception() -> None:
    """A handler's exception is worded by TorchServe; what the handler chose is the status alone."""
    error = of_rest(HandlerAnswer(409, "application/json", own("InternalServerException")), True, 1234, "digits")
    assert (str(error), error.answer) == ("why", HandlerAnswer(409))


@pytest.mark.parametrize("kind", ["ModelNotFoundException", "ServiceUnavailableException"])
def test_what_is_not_a_handlers(kind: str) -> None:
    """TorchServe's own failures are told by us, and not as the handler's."""
    assert of_rest(HandlerAnswer(503, "application/json", own(kind)), True, 1234, "digits").answer is None


RAISED_BY_DIGITS = "The handler of model 'digits' raised an error; TorchServe's log has its traceback."
HANDLERS = "\norg.pytorch.serve.http.InternalServerException"


@pytest.mark.parametrize(
    ("code", "details", "kind", "text", "status"),
    [
        ("INTERNAL", "x\norg.pytorch.serve.archive.model.ModelNotFoundException", ServableLost, None, None),
        ("INTERNAL", "x\norg.pytorch.serve.archive.model.ModelVersionNotFoundException", ServableLost, None, None),
        (
            "INTERNAL",
            f'Model "{SERVABLE}" has no worker to serve.\nInternalServerException.()',
            Unavailable,
            'Model "digits" has no worker to serve.',
            None,
        ),
        ("INVALID_ARGUMENT", "first\nsecond" + HANDLERS, InvalidRequest, "first\nsecond", 400),
        ("NOT_FOUND", f"no such user in {SERVABLE}" + HANDLERS, InvalidRequest, "no such user in digits", 404),
        ("ABORTED", "taken" + HANDLERS, InvalidRequest, "taken", 409),
        ("FAILED_PRECONDITION", "tea" + HANDLERS, InvalidRequest, "tea", 422),
        ("RESOURCE_EXHAUSTED", "slow down" + HANDLERS, Overloaded, "slow down", 429),
        ("UNAVAILABLE", "Prediction failed" + HANDLERS, InferenceFailed, RAISED_BY_DIGITS, 503),
        ("INTERNAL", "Worker died." + HANDLERS, InferenceFailed, "Worker died.", 500),
        ("UNAVAILABLE", "connection refused", Unavailable, None, None),
        ("INTERNAL", None, InferenceFailed, "INTERNAL", None),
    ],
)
def test_what_the_end_of_a_grpc_call_means(
    code: str, details: str | None, kind: type[PorticoError], text: str | None, status: int | None
) -> None:
    """It means the same as by REST; no Java class and no servable's name is told to clients."""
    failed = grpc.aio.AioRpcError(grpc.StatusCode[code], grpc.aio.Metadata(), grpc.aio.Metadata(), details)
    with pytest.raises(PorticoError) as caught:
        raise_of_grpc(failed, 1234, SERVABLE, "digits")
    assert type(caught.value) is kind
    assert text in (None, str(caught.value))
    assert caught.value.answer == (HandlerAnswer(status) if status else None)
    assert "Exception" not in str(caught.value)


@pytest.mark.parametrize("code", [*_STATUS, grpc.StatusCode.INTERNAL], ids=lambda code: code.name)
def test_codes_come_back(code: grpc.StatusCode) -> None:
    """The code of a handler's failure is the one that a client of TorchServe's gRPC gets again."""
    assert _code(HandlerAnswer(_STATUS.get(code, 500))).name == code.name
