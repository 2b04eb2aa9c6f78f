"""What clients read when something is wrong, through the whole stack: the code, and a text that says what to do."""

import subprocess

import grpc
import pytest
from door import Door

from portico.wire import tf_serving_pb2 as tfs
from portico.wire import torchserve_pb2 as ts

LIMIT = 64 << 20
ROW = [5.1, 3.5, 1.4, 0.2]


def refusal(door: Door, method: str, message: bytes) -> tuple[grpc.StatusCode, str]:
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(door.address, options) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(method)(message, timeout=30)
    return caught.value.code(), caught.value.details()


def named(model: str) -> bytes:
    request = tfs.PredictRequest()
    request.model_spec.name = model
    return request.SerializeToString()


PREDICT = "/tensorflow.serving.PredictionService/Predict"
PREDICTIONS = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"


def test_unknown_model(door: Door) -> None:
    """A model that is not there is 404 / NOT_FOUND in each protocol's form, and the closest name is told."""
    for path in ("/v2/models/iriss/infer", "/v1/models/iriss:predict"):
        answer = door.post(path, {"inputs": []})
        assert answer.status == 404
        assert "Did you mean iris?" in answer.json["error"]
    answer = door.post("/predictions/digit", b"{}")
    assert (answer.status, answer.json["code"], answer.json["type"]) == (404, 404, "ModelNotFoundException")
    assert "Did you mean digits?" in answer.json["message"]
    assert refusal(door, PREDICT, named("iriss"))[0] is grpc.StatusCode.NOT_FOUND
    code, text = refusal(door, PREDICTIONS, ts.PredictionsRequest(model_name="digit").SerializeToString())
    assert (code, "digits" in text) == (grpc.StatusCode.NOT_FOUND, True)


def test_unknown_version(door: Door) -> None:
    """A version or label that is not there is 404, and those that are there are told."""
    assert "Versions of model 'iris': 1" in door.get("/v2/models/iris/versions/7").json["error"]
    assert door.post("/v1/models/iris/versions/7:predict", {"instances": [ROW]}).status == 404
    assert door.post("/v1/models/iris/labels/stable:predict", {"instances": [ROW]}).status == 404
    assert door.post("/predictions/digits/9.9", b"{}").status == 404


@pytest.mark.parametrize(
    ("name", "datatype", "data", "shape", "told"),
    [
        ("measurements", "INT64", [1, 2, 3, 4], [1, 4], ["'measurements'", "INT64 [1, 4]", "FP32 [-1, 4]"]),
        ("measurements", "FP32", [1, 2, 3], [1, 3], ["'measurements'", "FP32 [1, 3]", "FP32 [-1, 4]"]),
        ("measurement", "FP32", ROW, [1, 4], ["'measurement'", "'measurements' (FP32 [-1, 4])"]),
        ("measurements", "FP32", ROW, [2, 4], ["'measurements'", "shape [2, 4] holds 8 elements", "4 were given"]),
        ("measurements", "FP32", ["a"], [1, 4], ["'measurements'", "FP32", "strings"]),
        ("measurements", "FP99", ROW, [1, 4], ["'measurements'", "FP99", "FP32"]),
    ],
    ids=["datatype", "shape", "name", "count", "kind", "no datatype"],
)
def test_wrong_input(
    door: Door, name: str, datatype: str, data: list[object], shape: list[int], told: list[str]
) -> None:
    """An input that does not fit is 400, naming the input, what was given and what the model takes."""
    answer = door.infer("iris", name, datatype, data, shape)
    assert answer.status == 400
    for text in told:
        assert text in answer.json["error"]


def test_malformed_bodies(door: Door) -> None:
    """A body that is no JSON, or no message, is 400 / INVALID_ARGUMENT."""
    for path in ("/v2/models/iris/infer", "/v1/models/iris:predict"):
        for body in (b"", b"{", b"[]", b'{"inputs": 1', b"\xff\xfe"):
            answer = door.post(path, body)
            assert (answer.status, list(answer.json)) == (400, ["error"]), (path, body)
    for method in (PREDICT, PREDICTIONS):
        assert refusal(door, method, b"\xff" * 7)[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_a_handlers_own_refusal(door: Door) -> None:
    """What a TorchServe handler refuses with 400 comes back as 400 with its text, in the form of the protocol."""
    answer = door.post("/predictions/digits", b'"no image"', content_type="application/json")
    assert (answer.status, answer.json["code"]) == (400, 400)
    assert "8x8" in answer.json["message"]
    assert "--" not in answer.json["message"]
    assert door.infer("digits", "image", "FP32", [1.0], [1]).status == 400


def test_too_large(door: Door) -> None:
    """A message over the limit is 413 / RESOURCE_EXHAUSTED, and the limit is told."""
    answer = door.post("/v2/models/iris/infer", bytes(LIMIT + 1))
    assert (answer.status, str(LIMIT) in answer.json["error"]) == (413, True)
    code, text = refusal(door, PREDICT, bytes(LIMIT + 1))
    assert (code, str(LIMIT) in text) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)


def test_large_messages_pass(door: Door) -> None:
    """Messages far over gRPC's default of 4 MB reach the model server and come back, on both servers."""
    rows = 600_000  # 9.6 MB of measurements, 9.6 MB of answers
    request = tfs.PredictRequest()
    request.model_spec.name = "iris"
    tensor = request.inputs["measurements"]
    tensor.dtype = 1
    for size in (rows, 4):
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = bytes(rows * 16)
    options = [("grpc.max_receive_message_length", LIMIT), ("grpc.max_send_message_length", LIMIT)]
    with grpc.insecure_channel(door.address, options) as channel:
        answer = channel.unary_unary(PREDICT)(request.SerializeToString(), timeout=60)
    assert len(tfs.PredictResponse.FromString(answer).outputs["probabilities"].float_val) == rows * 3
    answer = door.post("/predictions/digits", bytes(20 << 20), content_type="application/octet-stream")
    assert (answer.status, "8x8" in answer.json["message"]) == (400, True)


def test_unknown_paths_and_methods(door: Door) -> None:
    """A path that no protocol has is 404, a wrong HTTP method 405, a wrong RPC UNIMPLEMENTED."""
    assert door.get("/v3/models").status == 404
    answer = door.get("/v2/models/iris/infer")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    code, _ = refusal(door, "/tensorflow.serving.PredictionService/Train", b"")
    assert code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "path", ["/v2/models/%FF", "/%C0%AF", "/v2/models/%ED%A0%80", "/v2/models/caf%C3%A9", "/predictions/%ff/1"]
)
def test_paths_that_are_no_text(door: Door, path: str) -> None:
    """Escapes that are not ASCII, or not even UTF-8, get an answer like any path that is not there."""
    answer = door.get(path)
    none = "There is no such path: names of models and paths are ASCII."
    assert (answer.status, answer.json) == (404, {"error": none})
    assert refusal(door, path, b"") == (grpc.StatusCode.UNIMPLEMENTED, none)


def test_encoded_bodies(door: Door) -> None:
    """A body in an encoding that is not read, or that it is not in, is refused by the name of that encoding."""
    answer = door.post("/v2/models/iris/infer", b"\x1f\x8b", content_encoding="br")
    assert (answer.status, "encoded as br" in answer.json["error"]) == (400, True)
    answer = door.post("/v2/models/iris/infer", b"\x1f\x8b", content_encoding="gzip")
    assert (answer.status, "it is not whole gzip" in answer.json["error"]) == (400, True)


def test_deadline(door: Door) -> None:
    """A deadline that is over before a model can answer is DEADLINE_EXCEEDED."""
    request = tfs.PredictRequest()
    request.model_spec.name = "iris"
    with grpc.insecure_channel(door.address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(PREDICT)(request.SerializeToString(), timeout=1e-4)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_head_breaks_no_connection(door: Door) -> None:
    """HEAD is answered where GET is, and refused or not found elsewhere, with no body; the connection goes on."""
    paths = {"/healthz": 200, "/readyz": 200, "/v2/models/iris": 200, "/v2/models/iris/infer": 405, "/nothing": 404}
    urls = [f"http://{door.address}{path}" for path in paths]
    command = ["curl", "--silent", "--show-error", "--head", "--max-time", "20"]
    calls = [["--http1.1", *urls], *(["--http2-prior-knowledge", url] for url in urls)]
    found = [subprocess.run([*command, *call], capture_output=True, text=True, timeout=120) for call in calls]
    assert [(each.returncode, each.stderr) for each in found] == [(0, "")] * len(calls)
    lines = [line for each in found for line in each.stdout.splitlines() if line.startswith("HTTP/")]
    assert [int(line.split()[1]) for line in lines] == [*paths.values()] * 2
