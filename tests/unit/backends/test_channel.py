"""gRPC's failures in our own terms."""

import grpc
import pytest

from portico.backends.channel import raise_ours
from portico.edges.status import STATUS
from portico.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InvalidRequest,
    Overloaded,
    PorticoError,
    ServableLost,
    TooLarge,
    Unavailable,
)

FAILURES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


def ours(code: grpc.StatusCode, details: str | None) -> PorticoError:
    """What a failure with this code and text is raised as."""
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)
    with pytest.raises(PorticoError) as caught:
        raise_ours(error, "TF Serving", 1234, {"iris--0123456789ab": "iris"})
    assert caught.value.__cause__ is error
    return caught.value


@pytest.mark.parametrize("code", FAILURES, ids=lambda code: code.name)
def test_every_code_is_one_of_our_errors(code: grpc.StatusCode) -> None:
    """No code of gRPC is left without an error of the tree, and none without a text."""
    error = ours(code, None)
    assert type(error) in STATUS
    assert str(error)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequest),
        (grpc.StatusCode.FAILED_PRECONDITION, InvalidRequest),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.NOT_FOUND, InferenceFailed),
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded),
        (grpc.StatusCode.INTERNAL, InferenceFailed),
        (grpc.StatusCode.UNKNOWN, InferenceFailed),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_what_a_code_means(code: grpc.StatusCode, kind: type[PorticoError]) -> None:
    """Who can do something about a failure decides what it is: the client, the one who waits, or nobody."""
    assert type(ours(code, "why")) is kind


def test_a_model_that_is_not_there_was_not_asked() -> None:
    """Only then may the call be sent again: NOT_FOUND may also come from an operation in the model's graph."""
    assert type(ours(grpc.StatusCode.NOT_FOUND, "Servable not found for request: Specific(iris, 1)")) is ServableLost
    assert type(ours(grpc.StatusCode.NOT_FOUND, "/data/words.txt; No such file or directory")) is InferenceFailed


@pytest.mark.parametrize("code", FAILURES, ids=lambda code: code.name)
def test_inner_names_stay_inside(code: grpc.StatusCode) -> None:
    """The name that a model has inside its server is replaced by the one that clients know, in every failure."""
    text = str(ours(code, "Servable iris--0123456789ab: iris--0123456789ab failed"))
    assert "0123456789ab" not in text
    if code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
        assert text == "Servable iris: iris failed"


def test_addresses_stay_inside() -> None:
    """A server that cannot be reached is named, and its address is not."""
    text = str(ours(grpc.StatusCode.UNAVAILABLE, "failed to connect to ipv4:10.0.0.1:8500"))
    assert "TF Serving" in text
    assert "10.0.0.1" not in text


def test_too_large_for_the_channel() -> None:
    """gRPC's own refusal of a message is told as too large, with the limit, and not as a full queue."""
    error = ours(grpc.StatusCode.RESOURCE_EXHAUSTED, "CLIENT: Received message larger than max (2000 vs. 1234)")
    assert type(error) is TooLarge
    assert "1234 bytes" in str(error)
