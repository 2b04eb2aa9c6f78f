"""The one table from our errors to HTTP statuses and gRPC codes. A test fails when an error of the tree is missing."""

from enum import IntEnum
from http import HTTPStatus

from portico import errors


class GrpcCode(IntEnum):
    """gRPC's status codes (grpc/doc/statuscodes.md), as they go over the wire."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


STATUS: dict[type[errors.PorticoError], tuple[HTTPStatus, GrpcCode]] = {
    errors.PorticoError: (HTTPStatus.INTERNAL_SERVER_ERROR, GrpcCode.INTERNAL),
    errors.InvalidRequest: (HTTPStatus.BAD_REQUEST, GrpcCode.INVALID_ARGUMENT),
    errors.NotFound: (HTTPStatus.NOT_FOUND, GrpcCode.NOT_FOUND),
    errors.ModelNotFound: (HTTPStatus.NOT_FOUND, GrpcCode.NOT_FOUND),
    errors.VersionNotFound: (HTTPStatus.NOT_FOUND, GrpcCode.NOT_FOUND),
    errors.MethodNotFound: (HTTPStatus.NOT_FOUND, GrpcCode.UNIMPLEMENTED),
    errors.TooLarge: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, GrpcCode.RESOURCE_EXHAUSTED),
    errors.Overloaded: (HTTPStatus.TOO_MANY_REQUESTS, GrpcCode.RESOURCE_EXHAUSTED),
    errors.Unavailable: (HTTPStatus.SERVICE_UNAVAILABLE, GrpcCode.UNAVAILABLE),
    errors.ModelNotReady: (HTTPStatus.SERVICE_UNAVAILABLE, GrpcCode.UNAVAILABLE),
    errors.ServableLost: (HTTPStatus.SERVICE_UNAVAILABLE, GrpcCode.UNAVAILABLE),
    errors.DeadlineExceeded: (HTTPStatus.GATEWAY_TIMEOUT, GrpcCode.DEADLINE_EXCEEDED),
    errors.InferenceFailed: (HTTPStatus.INTERNAL_SERVER_ERROR, GrpcCode.INTERNAL),
    errors.NotRepresentable: (HTTPStatus.NOT_ACCEPTABLE, GrpcCode.FAILED_PRECONDITION),
    errors.NotCached: (HTTPStatus.GATEWAY_TIMEOUT, GrpcCode.FAILED_PRECONDITION),  # RFC 9111, section 5.2.1.7
}


def http_status(error: errors.PorticoError) -> int:
    """The HTTP status that this error is answered with."""
    return STATUS[type(error)][0].value


def grpc_code(error: errors.PorticoError) -> GrpcCode:
    """The gRPC code that this error is answered with."""
    return STATUS[type(error)][1]
