"""A TorchServe handler that answers in pieces: the words of a text, one after the other.

Over REST each piece is a chunk of the answer, over gRPC (`StreamPredictions`) a message. At least one piece is sent
before the last, whatever the text: TorchServe loses the worker of a handler that is asked by `StreamPredictions` and
answers at once.
"""

from typing import Any

from ts.handler_utils.utils import send_intermediate_predict_response


class WordsHandler:
    """TorchServe's worker calls `initialize` once, and `handle` for each batch."""

    def initialize(self, context: Any) -> None:
        """There is nothing to load."""

    def handle(self, data: "list[dict[str, Any]]", context: Any) -> "list[str]":
        """One text -> "3 words:", then each word. Batches of one only: all pieces belong to one answer."""
        (request,) = data
        (text,) = request.values()
        if isinstance(text, (bytes, bytearray)):
            text = text.decode(errors="replace")
        words = str(text).split()
        pieces = [f"{len(words)} words:", *(" " + word for word in words), "\n"]
        for piece in pieces[:-1]:
            send_intermediate_predict_response([piece], context.request_ids, "a piece", 200, context)
        return pieces[-1:]
