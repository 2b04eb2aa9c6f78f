"""A handler that answers in pieces, and waits for a file between them. The request names the file; with a second line
"raise" it fails then.
"""

import time
from pathlib import Path
from typing import Any

from ts.handler_utils.utils import send_intermediate_predict_response

LONGEST = 60.0


class GatedHandler:
    """TorchServe's worker calls `initialize` once, and `handle` for each batch."""

    def initialize(self, context: Any) -> None:
        """There is nothing to load."""

    def handle(self, data: "list[dict[str, Any]]", context: Any) -> "list[str]":
        """ "first", then, once the file is there, "second" and "third"."""
        ((request,),) = [row.values() for row in data]
        gate, _, then = bytes(request).decode().partition("\n")
        send_intermediate_predict_response(["first "], context.request_ids, "a piece", 200, context)
        ends = time.monotonic() + LONGEST
        while not Path(gate).exists() and time.monotonic() < ends:
            time.sleep(0.02)
        if then == "raise":
            raise ValueError("as it was told")
        send_intermediate_predict_response(["second "], context.request_ids, "a piece", 200, context)
        return ["third"]
