"""A handler that counts its calls in a file, and does what its input says: wait for so long, or for a file, then fail.
What is no object comes back as the text that Python has for it.
"""

import json
import time
from pathlib import Path
from typing import Any

from ts.handler_utils.utils import send_intermediate_predict_response

CONTENT = 1
LONGEST = 60.0


class CountedHandler:
    """TorchServe's worker calls `initialize` once, and `handle` for each batch."""

    def initialize(self, context: Any) -> None:
        """There is nothing to load."""

    def handle(self, data: "list[dict[str, Any]]", context: Any) -> "list[str]":
        """{"log": a file, "sleep": seconds, "gate": a file, "fail": a file, "pieces": whether to answer in several} →
        the content and the number of the call, or a failure if there is the file `fail`.
        """
        ((name, said),) = data[0].items()
        path = context.get_all_request_header(0).get("url_path", "")
        kind = context.get_all_request_header(0)[name].get("content-type", "")
        asked = json.loads(said) if isinstance(said, (bytes, bytearray, str)) else said
        if not isinstance(asked, dict):
            return [f"{asked!r} {kind} {path}"]
        with Path(asked["log"]).open("a+") as log:
            log.write("called\n")
            log.seek(0)
            number = len(log.readlines())
        time.sleep(asked.get("sleep", 0))
        gate, ends = asked.get("gate"), time.monotonic() + LONGEST
        while gate and not Path(gate).exists() and time.monotonic() < ends:
            time.sleep(0.02)
        if Path(asked.get("fail", "/nonexistent")).exists():
            raise ValueError("as it was told")
        if asked.get("pieces"):
            send_intermediate_predict_response(["in pieces: "], context.request_ids, "a piece", 200, context)
        return [f"content {CONTENT}, call {number}"]
