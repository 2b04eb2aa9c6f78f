"""What is asked, y = 2x on FP32 numbers of the shape [n, 16], in every form that the gateway takes, and as much as is
wanted. Knows of no server.
"""

import json
import struct
from dataclasses import dataclass
from functools import cache

import numpy as np

from portico.wire import open_inference_pb2, tensorflow_pb2, tf_serving_pb2

MODEL = "double"
WIDTH = 16
REDIS_KEY = b"portico-bench"
BINARY_HEADER = "inference-header-content-length"
NUMBER = 1_234_567
"""Takes the place of the first of the numbers where a request's own number may go: seven digits, exact in FP32."""
JSON_DIGITS = 6


@dataclass(frozen=True)
class Mark:
    """Where in a body the request's number goes: `length` bytes from `offset`, as "text" or as "float32"."""

    offset: int
    length: int
    form: str


@dataclass(frozen=True)
class Body:
    """A request's body, and what goes with it."""

    data: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def mark(self) -> Mark:
        """Raises ValueError when there is no place for a number."""
        if self.content_type == "application/json" and not self.headers:
            text = str(NUMBER).encode()
            return Mark(self.data.index(text), len(text), "text")
        return Mark(self.data.index(struct.pack("<f", NUMBER)), 4, "float32")


def rows_of(size: int) -> int:
    """How many rows of FP32 numbers take about so many bytes."""
    return max(1, size // (4 * WIDTH))


@cache
def numbers(rows: int) -> np.ndarray:
    """[rows, 16] float32, the same each time, with `NUMBER` at the start."""
    made = np.random.default_rng(7).random((rows, WIDTH), np.float32).round(JSON_DIGITS)
    made[0, 0] = NUMBER
    return made


def _values(rows: int) -> list[float]:
    return [NUMBER, *(round(float(value), JSON_DIGITS) for value in numbers(rows).ravel()[1:])]


def open_inference_json(rows: int = 1) -> Body:
    """`POST /v2/models/double/infer`, with the numbers in the JSON."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, WIDTH], "data": _values(rows)}
    return Body(json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode())


def open_inference_binary(rows: int = 1) -> Body:
    """The same with the numbers as bytes behind the JSON, and so in the answer."""
    data = numbers(rows).tobytes()
    tensor = {
        "name": "x",
        "datatype": "FP32",
        "shape": [rows, WIDTH],
        "parameters": {"binary_data_size": len(data)},
    }
    asked = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    head = json.dumps(asked, separators=(",", ":")).encode()
    return Body(head + data, "application/octet-stream", ((BINARY_HEADER, str(len(head))),))


def tf_json(rows: int = 1) -> Body:
    """`POST /v1/models/double:predict`, TF Serving's REST."""
    values = _values(rows)
    instances = [values[start : start + WIDTH] for start in range(0, len(values), WIDTH)]
    return Body(json.dumps({"instances": instances}, separators=(",", ":")).encode())


def torch_json() -> Body:
    """`POST /predictions/double-torch`."""
    return Body(json.dumps({"x": _values(1)}, separators=(",", ":")).encode())


def framed(message: bytes) -> Body:
    """A gRPC message in its frame (grpc/doc/PROTOCOL-HTTP2.md)."""
    return Body(b"\0" + len(message).to_bytes(4, "big") + message, "application/grpc", (("te", "trailers"),))


def model_infer(rows: int = 1) -> Body:
    """Open Inference's ModelInferRequest, with the numbers as raw contents."""
    request = open_inference_pb2.ModelInferRequest(model_name=MODEL)
    request.inputs.add(name="x", datatype="FP32", shape=[rows, WIDTH])
    request.raw_input_contents.append(numbers(rows).tobytes())
    return framed(request.SerializeToString())


def predict(model: str = MODEL, rows: int = 1) -> Body:
    """TF Serving's PredictRequest, with the numbers as the tensor's content."""
    request = tf_serving_pb2.PredictRequest()
    request.model_spec.name = model
    _fill(request.inputs["x"], numbers(rows))
    return framed(request.SerializeToString())


def _fill(tensor: tensorflow_pb2.TensorProto, values: np.ndarray) -> None:
    tensor.dtype = tensorflow_pb2.DT_FLOAT
    for size in values.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = values.tobytes()


def predict_answer(rows: int = 1) -> bytes:
    """What TF Serving answers to `predict`, framed."""
    response = tf_serving_pb2.PredictResponse()
    response.model_spec.name = MODEL
    response.model_spec.version.value = 1
    _fill(response.outputs["y"], 2 * numbers(rows))
    return framed(response.SerializeToString()).data


def redis_get() -> Body:
    """Redis' GET (redis.io/docs/reference/protocol-spec)."""
    return Body(b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(REDIS_KEY), REDIS_KEY))


def json_answer(rows: int = 1) -> bytes:
    """What the gateway answers to `open_inference_json`, near enough for what only has to be as long."""
    output = {"name": "y", "datatype": "FP32", "shape": [rows, WIDTH], "data": [2 * value for value in _values(rows)]}
    return json.dumps({"model_name": MODEL, "model_version": "1", "outputs": [output]}, separators=(",", ":")).encode()


def binary_answer(rows: int = 1) -> bytes:
    """What the gateway answers to `open_inference_binary`, in the same way."""
    data = (2 * numbers(rows)).tobytes()
    parameters = {"binary_data_size": len(data)}
    output = {"name": "y", "datatype": "FP32", "shape": [rows, WIDTH], "parameters": parameters}
    head = json.dumps({"model_name": MODEL, "model_version": "1", "outputs": [output]}, separators=(",", ":"))
    return head.encode() + data


def grpc_answer(rows: int = 1) -> bytes:
    """What the gateway answers to `model_infer`, framed."""
    response = open_inference_pb2.ModelInferResponse(model_name=MODEL, model_version="1")
    response.outputs.add(name="y", datatype="FP32", shape=[rows, WIDTH])
    response.raw_output_contents.append((2 * numbers(rows)).tobytes())
    return framed(response.SerializeToString()).data
