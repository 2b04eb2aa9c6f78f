"""A client of the door for tests: plain HTTP and plain gRPC bytes, nothing that could hide a fault."""

import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TIMEOUT = 30.0


@dataclass(frozen=True)
class Answer:
    """What came back: `headers` with lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Door:
    """Calls by path on one port. Each call is a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.address = f"127.0.0.1:{port}"

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Bytes go as they are, anything else as JSON."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        try:
            connection.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.call("GET", path)

    def post(self, path: str, body: Any = b"", **headers: str) -> Answer:
        return self.call("POST", path, body, **headers)

    def infer(self, model: str, name: str, datatype: str, data: list[Any], shape: list[int], **headers: str) -> Answer:
        """Open Inference `infer` with one input."""
        tensor = {"name": name, "datatype": datatype, "shape": shape, "data": data}
        return self.post(f"/v2/models/{model}/infer", {"inputs": [tensor]}, **headers)


def eventually(holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Waits until `holds()`; fails with `what` after `seconds`."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)
