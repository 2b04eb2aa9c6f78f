"""The one table of HTTP statuses and gRPC codes."""

from collections.abc import Iterator
from http import HTTPStatus

import grpc
import pytest

from portico import errors
from portico.edges.status import STATUS, GrpcCode, grpc_code, http_status


def tree(root: type[errors.PorticoError] = errors.PorticoError) -> Iterator[type[errors.PorticoError]]:
    """All of the tree that lies in errors.py; other modules' own errors are not for clients."""
    if root.__module__ == errors.__name__:
        yield root
    for child in root.__subclasses__():
        yield from tree(child)


def test_every_error_has_both_codes() -> None:
    """No error of the tree lacks an HTTP status of failure or a gRPC code of failure, and nothing else has one."""
    assert set(STATUS) == set(tree())
    for status, code in STATUS.values():
        assert status >= HTTPStatus.BAD_REQUEST
        assert code is not GrpcCode.OK


@pytest.mark.parametrize("error", list(tree()), ids=lambda error: error.__name__)
def test_both_readers_of_the_table(error: type[errors.PorticoError]) -> None:
    """An instance of each error is answered with its own row of the table."""
    instance = errors.TooLarge(1) if error is errors.TooLarge else error("text")
    assert (http_status(instance), grpc_code(instance)) == STATUS[error]


def test_numbers_are_those_of_grpc() -> None:
    """Each gRPC code has the number that grpcio gives it."""
    assert {code.name: int(code) for code in GrpcCode} == {code.name: code.value[0] for code in grpc.StatusCode}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.InvalidRequest, 400, grpc.StatusCode.INVALID_ARGUMENT),
        (errors.ModelNotFound, 404, grpc.StatusCode.NOT_FOUND),
        (errors.MethodNotFound, 404, grpc.StatusCode.UNIMPLEMENTED),
        (errors.TooLarge, 413, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.Unavailable, 503, grpc.StatusCode.UNAVAILABLE),
        (errors.ModelNotReady, 503, grpc.StatusCode.UNAVAILABLE),
        (errors.NotRepresentable, 406, grpc.StatusCode.FAILED_PRECONDITION),
        (errors.DeadlineExceeded, 504, grpc.StatusCode.DEADLINE_EXCEEDED),
    ],
)
def test_codes_that_clients_rely_on(error: type[errors.PorticoError], status: int, code: grpc.StatusCode) -> None:
    """The codes that retries, load balancers and client libraries act on are the ones the protocols prescribe."""
    assert STATUS[error] == (status, code.value[0])
