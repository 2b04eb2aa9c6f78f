"""A TorchServe handler with explanations: a score that adds up weighted measurements, and what each of them added.

`/predictions/score` answers with the score, `/explanations/score` with the share of each measurement in it.
"""

import json
from typing import Any

WEIGHTS = {"height": 0.5, "width": 2.0, "weight": -1.0}


class ScoreHandler:
    """TorchServe's worker calls `initialize` once, and `handle` for each batch."""

    def initialize(self, context: Any) -> None:
        """There is nothing to load."""

    def handle(self, data: "list[dict[str, Any]]", context: Any) -> "list[dict[str, float]]":
        """{"height": 1.5, …} as the body, or each measurement as a part -> {"score": …}, or the shares of it."""
        answers = []
        for index, request in enumerate(data):
            context.set_response_content_type(index, "application/json")
            measured = read(request)
            shares = {name: WEIGHTS[name] * measured[name] for name in WEIGHTS if name in measured}
            explain = context.get_request_header(index, "explain") == "True"
            answers.append(shares if explain else {"score": sum(shares.values())})
        return answers


def read(request: "dict[str, Any]") -> "dict[str, float]":
    """The measurements of one request: TorchServe has parsed JSON already where its content type says so."""
    body = request.get("body", request)
    values = json.loads(body) if isinstance(body, (bytes, bytearray, str)) else body
    return {name: float(value) for name, value in values.items()}
