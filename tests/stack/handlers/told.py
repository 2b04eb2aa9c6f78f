"""A handler that tells what it was given: each part in hex, its content type, and what it sees of the URL."""

from typing import Any


class ToldHandler:
    """TorchServe's worker calls `initialize` once, and `handle` for each batch."""

    def initialize(self, context: Any) -> None:
        """There is nothing to load."""

    def handle(self, data: "list[dict[str, Any]]", context: Any) -> "list[dict[str, Any]]":
        """What there is of each request; what TorchServe has decoded already is given as it is."""
        answers = []
        for index, row in enumerate(data):
            context.set_response_content_type(index, "application/json")
            headers = context.get_all_request_header(index)
            raw = {name: part.hex() if isinstance(part, (bytes, bytearray)) else part for name, part in row.items()}
            types = {name: headers[name]["content-type"] for name in row}
            url_path, secret = headers.get("url_path"), headers.get("X-Secret")
            answers.append({"parts": raw, "types": types, "url_path": url_path, "secret": secret})
        return answers
