"""A TorchServe handler that chooses status, content type and body of its answers itself: what is left on a shelf.

A client of TorchServe's REST API gets them as they are. Other protocols have no place for them: there a status of 400
and more is an error with the body as its text.
"""

from typing import Any

SHELF = {"tea": 3, "coffee": 0}


class ShelfHandler:
    """TorchServe's worker calls `initialize` once, and `handle` for each batch."""

    def initialize(self, context: Any) -> None:
        """There is nothing to load."""

    def handle(self, data: "list[dict[str, Any]]", context: Any) -> "list[str]":
        """The name of an item -> 200 and how many are left, 202 if it has to be ordered, 404 if nobody knows it."""
        answers = []
        for index, request in enumerate(data):
            (item,) = request.values()
            if isinstance(item, (bytes, bytearray)):
                item = item.decode(errors="replace")
            context.set_response_content_type(index, "text/plain; charset=utf-8")
            answers.append(self.answer(str(item), index, context))
        return answers

    def answer(self, item: str, index: int, context: Any) -> str:
        """The text for one item; sets the status."""
        if item not in SHELF:
            context.set_response_status(code=404, phrase="Not Found", idx=index)
            return f"there is no {item} on this shelf"
        if not SHELF[item]:
            context.set_response_status(code=202, phrase="Accepted", idx=index)
            return f"{item} is ordered"
        return f"{item} left: {SHELF[item]}"
