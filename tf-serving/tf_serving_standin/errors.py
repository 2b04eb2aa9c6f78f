"""The one error type of the stand-in: a canonical status code and TF Serving's text.

Raised everywhere, turned into a gRPC status or an HTTP code only by the two edges.
"""

from enum import IntEnum


class Code(IntEnum):
    """Canonical status codes, with the numbers of gRPC and of tensorflow/core/protobuf/error_codes.proto."""

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


class ServingError(Exception):
    """A request, a load or a configuration failed with `code`; `message` is what the client sees."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


def invalid_argument(message: str) -> ServingError:
    """INVALID_ARGUMENT with `message`."""
    return ServingError(Code.INVALID_ARGUMENT, message)


def not_found(message: str) -> ServingError:
    """NOT_FOUND with `message`."""
    return ServingError(Code.NOT_FOUND, message)


def failed_precondition(message: str) -> ServingError:
    """FAILED_PRECONDITION with `message`."""
    return ServingError(Code.FAILED_PRECONDITION, message)


def from_exception(error: BaseException) -> ServingError:
    """`error` as a ServingError: TensorFlow's errors keep their code and text, anything else is INTERNAL."""
    if isinstance(error, ServingError):
        return error
    code, message = getattr(error, "error_code", None), getattr(error, "message", None)
    if isinstance(code, int) and isinstance(message, str) and code in Code._value2member_map_:
        return ServingError(Code(code), message)
    if isinstance(error, UnicodeDecodeError):
        # TensorFlow's own error, whose text quotes an input that is no text: Python could not make one of it.
        return ServingError(Code.INVALID_ARGUMENT, error.object.decode(errors="replace"))
    return ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}")
