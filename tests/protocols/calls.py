"""A client of a door by address: plain HTTP, and gRPC by method and message."""

import http.client
import json
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

SECONDS = 30.0
_Answer = TypeVar("_Answer", bound=Message)


class Door:
    """`address` is host:port."""

    def __init__(self, address: str) -> None:
        self.address = address

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers with lower-case names, body. Bytes go as they are, anything else as JSON."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        host, _, port = self.address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=SECONDS)
        try:
            sent = {
                name.replace("_", "-"): value for name, value in {"content_type": "application/json", **headers}.items()
            }
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """The JSON of an answer that must be a good one."""
        status, _, body = self.call("GET", path)
        assert status == 200, body
        return json.loads(body)

    def post(self, path: str, body: Any, **headers: str) -> Any:
        """The JSON of an answer that must be a good one."""
        status, _, told = self.call("POST", path, body, **headers)
        assert status == 200, told
        return json.loads(told)

    def grpc(self, method: str, request: Message, kind: type[_Answer]) -> _Answer:
        """The answer to a unary call of "service/method". Raises grpc.RpcError."""
        with grpc.insecure_channel(self.address) as channel:
            told = channel.unary_unary(f"/{method}")(request.SerializeToString(), timeout=SECONDS)
        return kind.FromString(told)
