"""The one tree of errors. Everything Portico refuses or fails at is one of these; every layer may raise
them and none of them knows a protocol: their HTTP statuses and gRPC codes stand in `edges/status.py`.

    PorticoError
    ├── InvalidRequest        the request can never succeed as it is
    ├── NotFound              no such thing, and a retry will not find it
    │   ├── ModelNotFound
    │   ├── VersionNotFound
    │   └── MethodNotFound    no such endpoint or RPC
    ├── TooLarge              over the size limit
    ├── Overloaded            the model server's queue is full
    ├── Unavailable           may succeed when tried again
    │   └── ModelNotReady     known, but it cannot answer yet
    │       └── ServableLost  routed to, but its model server does not know it
    ├── DeadlineExceeded      the caller's time, or the stack's, is spent
    ├── InferenceFailed       the model itself failed on this input
    ├── NotRepresentable      the model answered, and the protocol has no form for it
    └── NotCached             the client takes only an answer that is kept, and none is

The message of each is written for the client: what was wrong, what was given, what would work.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

LONGEST_MESSAGE = 1500
"""Characters of a message; names and shapes in it are the client's, and may be as long as a request."""
LONGEST_NAME = 127
"""Characters of a model's name."""


@dataclass(frozen=True, slots=True)
class HandlerAnswer:
    """How a TorchServe handler answered in place of a prediction: the HTTP status of its choice and, where it wrote one
    itself, the body with its content type.
    """

    status: int
    content_type: str = ""
    body: bytes | None = None


class PorticoError(Exception):
    """Root of the tree. `str(error)` is fit for the client to read.

    `answer` is what a handler said itself, where one did: for the protocol of its own server, which gives it unchanged.
    """

    answer: HandlerAnswer | None = None

    def __init__(self, message: str) -> None:
        half = LONGEST_MESSAGE // 2
        super().__init__(message if len(message) <= LONGEST_MESSAGE else f"{message[:half]} … {message[-half:]}")


class InvalidRequest(PorticoError):
    """Malformed payload, or an input that the model does not take."""


class NotFound(PorticoError):
    """Nothing is there under this name.

    `explanation` is the message without the words at its start that the clients of one protocol match on.
    """

    def __init__(self, message: str, explanation: str = "") -> None:
        super().__init__(message)
        self.explanation = explanation or str(self)


class ModelNotFound(NotFound):
    """No model of this name is in the repository."""

    @classmethod
    def named(cls, name: str, known: Iterable[str]) -> "ModelNotFound":
        """Names the closest `known` model names, so that a typo explains itself.

        The words "Servable not found for request" are TF Serving's (`servers/.../servable_manager`), and its clients
        match on them.
        """
        names = list(known)
        name = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"
        close = get_close_matches(name, names, n=3, cutoff=0.6)
        hint = f" Did you mean {', '.join(close)}?" if close else " The model repository is empty."
        if names and not close:
            hint = f" There are {', '.join(sorted(names)[:3])}{' and others' if len(names) > 3 else ''}."
        explanation = f"There is no model named '{name}'.{hint}"
        return cls(f"Servable not found for request: Latest({name}). {explanation}", explanation)


class VersionNotFound(NotFound):
    """The model is there, this version or label is not."""

    @classmethod
    def of(cls, model: str, version: str, explanation: str) -> "VersionNotFound":
        """Begins with TF Serving's words, as its clients match on them."""
        return cls(f"Servable not found for request: Specific({model}, {version}). {explanation}", explanation)


class MethodNotFound(NotFound):
    """No endpoint or RPC of this name."""


class TooLarge(PorticoError):
    """The message is over the stack's size limit (bytes)."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"The message is larger than the limit of {limit} bytes. Send less at once, or raise "
            "PORTICO_MAX_MESSAGE_BYTES for the whole stack."
        )


class Overloaded(PorticoError):
    """The model server takes no more work now."""


class Unavailable(PorticoError):
    """A part of the stack cannot be reached, or was lost while it answered."""


class ModelNotReady(Unavailable):
    """The model is known and cannot answer yet; the message says why."""


class ServableLost(ModelNotReady):
    """The model server does not know what the route says that it has: it was restarted, or the route is old by now.

    No model was called.
    """


class DeadlineExceeded(PorticoError):
    """No answer within the time allowed."""


class InferenceFailed(PorticoError):
    """The model server took the request and failed on it."""


class NotRepresentable(PorticoError):
    """The model answered, and the protocol that the client chose has no form for it; another has."""


class NotCached(PorticoError):
    """`cache-control: only-if-cached`, and there is no such answer."""
