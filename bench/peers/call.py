"""One way to ask a peer, and whether its answer is right; used by every peer's module and by the benchmark."""

import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass
from struct import unpack

import bodies
import grpc
import numpy as np

from portico.wire import open_inference_pb2 as pb

LOOPBACK = "127.0.0.1"
PATIENCE = 5.0
"""Seconds in which an answer has to come."""
GRPC_PATH = "/inference.GRPCInferenceService/ModelInfer"
GRPC = "application/grpc"
FRAME = 5
"""Bytes in front of a message."""


@dataclass(frozen=True)
class Endpoint:
    """A POST. For gRPC, where `content_type` says so, `body` is the message without the 5 bytes of its frame."""

    port: int
    path: str
    body: bytes
    expected: Callable[[bytes], bool]
    content_type: str = "application/json"

    def ask(self) -> bytes | None:
        """The body of the answer; None when there is none, or an error."""
        return self._grpc() if self.content_type == GRPC else self._rest()

    def answers(self) -> bool:
        """Whether the answer is right."""
        answer = self.ask()
        return answer is not None and self.expected(answer)

    def _rest(self) -> bytes | None:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=PATIENCE)
        try:
            connection.request("POST", self.path, self.body, {"content-type": self.content_type})
            response = connection.getresponse()
            return response.read() if response.status == http.HTTPStatus.OK else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def _grpc(self) -> bytes | None:
        with grpc.insecure_channel(f"{LOOPBACK}:{self.port}") as channel:
            try:
                call = channel.unary_unary(self.path, bytes, bytes)
                return call(self.body, timeout=PATIENCE)
            except grpc.RpcError:
                return None


def doubles(found: object) -> bool:
    """Whether these are the numbers that Portico is asked with, each twice; some tell FP32 with all of its digits."""
    return isinstance(found, list) and np.array_equal(np.asarray(found, np.float32), 2 * bodies.numbers(1)[0])


def open_inference_rest(port: int) -> Endpoint:
    """Open Inference over REST (its specification, "Inference"), as JSON."""
    asked = bodies.open_inference_json().data
    return Endpoint(port, "/v2/models/double/infer", asked, lambda answer: doubles(json_output(answer)))


def open_inference_grpc(port: int) -> Endpoint:
    """Open Inference over gRPC."""
    message = bodies.model_infer().data[FRAME:]
    return Endpoint(port, GRPC_PATH, message, lambda answer: doubles(grpc_output(answer)), GRPC)


def plain_rest(port: int, path: str) -> Endpoint:
    """Of those with no protocol of their own: an object of arguments, answered with the result."""
    return Endpoint(port, path, bodies.torch_json().data, lambda answer: doubles(json.loads(answer)))


def json_output(answer: bytes) -> object:
    """The numbers of an answer as JSON, whose only row some send as a list of its own."""
    data = json.loads(answer)["outputs"][0]["data"]
    return data[0] if data and isinstance(data[0], list) else data


def grpc_output(answer: bytes) -> object:
    """The numbers of an answer, from whichever field has them."""
    response = pb.ModelInferResponse.FromString(answer)
    if response.raw_output_contents:
        raw = response.raw_output_contents[0]
        return list(unpack(f"<{len(raw) // 4}f", raw))
    return list(response.outputs[0].contents.fp32_contents)
