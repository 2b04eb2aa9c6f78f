"""One way to ask a peer, and whether its answer is right; used by every peer's module and by the benchmark."""

import http.client
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import pack, unpack

import grpc

from portico.wire import open_inference_pb2 as pb

LOOPBACK = "127.0.0.1"
PATIENCE = 5.0
"""Seconds in which an answer has to come."""
NUMBERS = tuple(index + 0.5 for index in range(16))
GRPC_PATH = "/inference.GRPCInferenceService/ModelInfer"
GRPC = "application/grpc"


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
    """Whether these are NUMBERS, each twice."""
    return found == [2 * number for number in NUMBERS]


def open_inference_rest(port: int) -> Endpoint:
    """Open Inference over REST (its specification, "Inference"), as JSON."""
    return Endpoint(port, "/v2/models/double/infer", json_body(NUMBERS), lambda answer: doubles(json_output(answer)))


def open_inference_grpc(port: int) -> Endpoint:
    """Open Inference over gRPC."""
    return Endpoint(port, GRPC_PATH, message(NUMBERS), lambda answer: doubles(grpc_output(answer)), GRPC)


def plain_rest(port: int, path: str) -> Endpoint:
    """Of those with no protocol of their own: an object of arguments, answered with the result."""
    return Endpoint(port, path, json.dumps({"x": NUMBERS}).encode(), lambda answer: doubles(json.loads(answer)))


def json_body(numbers: Sequence[float]) -> bytes:
    """One row of them."""
    tensor = {"name": "x", "shape": [1, len(numbers)], "datatype": "FP32", "data": list(numbers)}
    return json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()


def message(numbers: Sequence[float]) -> bytes:
    """One row of them, as most clients send it: FP32 in raw_input_contents."""
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, len(numbers)])
    raw = pack(f"<{len(numbers)}f", *numbers)
    return pb.ModelInferRequest(model_name="double", inputs=[tensor], raw_input_contents=[raw]).SerializeToString()


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
