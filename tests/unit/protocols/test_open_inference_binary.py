"""The Open Inference Protocol's binary tensor extension over REST, as its clients see it."""

import json
import struct
from typing import Any

import pytest

from asgi_client import Answer
from echo_models import DATATYPES, EchoGateway
from portico.inference import pack_bytes
from sample_gateway import SampleGateway

VALUES: dict[str, bytes] = {name: bytes(8) + bytes(range(1, 9)) for name in DATATYPES} | {
    "BOOL": b"\0\1" * 8,
    "BYTES": pack_bytes([b"", b"\xff\0", "größe".encode()]),
    "FP16": struct.pack("<8e", 0, 1, -1, 65504, 6e-8, float("inf"), -float("inf"), float("nan")),
    "BF16": b"\x80\x3f" * 8,
}
"""Bytes of a tensor of each datatype, and how many elements they are below."""
COUNT = {"BOOL": 16, "UINT8": 16, "INT8": 16, "BYTES": 3}
COUNT |= dict.fromkeys(("UINT16", "INT16", "FP16", "BF16"), 8) | dict.fromkeys(("UINT32", "INT32", "FP32"), 4)
COUNT |= dict.fromkeys(("UINT64", "INT64", "FP64"), 2)


def tensor(name: str, datatype: str, shape: list[int], size: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


async def post(gateway: SampleGateway, model: str, body: Any, data: bytes, length: Any = None) -> Answer:
    """The JSON and what follows it, under a header that says so, or else says `length`."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    header = (b"inference-header-content-length", str(len(text) if length is None else length).encode())
    return await gateway.rest("POST", f"/v2/models/{model}/infer", text + data, [header])


def taken_apart(answer: Answer) -> tuple[Any, bytes]:
    """(JSON, what follows it) of an answer in both."""
    assert (answer.status, answer.header(b"content-type")) == (200, "application/octet-stream")
    assert answer.header(b"content-length") == str(len(answer.body))
    length = int(answer.header(b"inference-header-content-length"))
    return json.loads(answer.body[:length]), answer.body[length:]


@pytest.mark.parametrize("datatype", DATATYPES)
async def test_every_datatype_both_ways(datatype: str) -> None:
    """A tensor of any datatype goes in as its bytes and comes out as them, with nothing lost."""
    data, count = VALUES[datatype], COUNT[datatype]
    body = {"id": "7", "inputs": [tensor("x", datatype, [count, 1], len(data))]}
    body["parameters"] = {"binary_data_output": True}
    found, behind = taken_apart(await post(EchoGateway(), f"echo-{datatype}", body, data))
    assert found == {
        "model_name": f"echo-{datatype}",
        "model_version": "1",
        "id": "7",
        "outputs": [tensor("y", datatype, [count, 1], len(data))],
    }
    assert behind == data


@pytest.mark.parametrize(
    ("shape", "data"), [([], b"\0\0\x80\x3f"), ([0], b""), ([3, 0, 2], b""), ([1] * 64, b"\0" * 4)]
)
async def test_shapes(shape: list[int], data: bytes) -> None:
    """Scalars, tensors of nothing and of the highest rank are tensors like any other."""
    outputs = [{"name": "y", "parameters": {"binary_data": True}}]
    body = {"inputs": [tensor("x", "FP32", shape, len(data))], "outputs": outputs}
    found, behind = taken_apart(await post(EchoGateway(), "echo-FP32", body, data))
    assert (found["outputs"], behind) == ([tensor("y", "FP32", shape, len(data))], data)


TWO: dict[str, Any] = {
    "inputs": [
        {"name": "x1", "datatype": "FP32", "shape": [2], "data": [1, 2]},
        tensor("x2", "BYTES", [1], 6),
    ]
}
TWO_DATA = pack_bytes([b"ab"])


async def test_json_and_bytes_mixed() -> None:
    """Some inputs may be JSON and others bytes, in one request, and each output as it is asked for."""
    gateway = EchoGateway()
    outputs = [{"name": "y1", "parameters": {"binary_data": True}}, {"name": "y2"}]
    found, behind = taken_apart(await post(gateway, "echo-two", TWO | {"outputs": outputs}, TWO_DATA))
    assert found["outputs"] == [
        tensor("y1", "FP32", [2], 8),
        {"name": "y2", "datatype": "BYTES", "shape": [1], "data": ["ab"]},
    ]
    assert behind == struct.pack("<2f", 1, 2)


@pytest.mark.parametrize(
    ("parameters", "outputs", "binary"),
    [
        ({}, {}, set()),
        ({"binary_data_output": False}, {}, set()),
        ({"binary_data_output": True}, {}, {"y1", "y2"}),
        ({"binary_data_output": True}, {"y1": None, "y2": False}, {"y1"}),
        ({}, {"y1": True, "y2": None}, {"y1"}),
        ({"binary_data_output": None}, {"y1": False, "y2": True}, {"y2"}),
    ],
)
async def test_which_outputs_are_bytes(parameters: Any, outputs: dict[str, Any], binary: set[str]) -> None:
    """An output's own parameter counts before the request's, and without either it is JSON."""
    asked = [{"name": name, "parameters": {"binary_data": wanted}} for name, wanted in outputs.items()]
    answer = await post(EchoGateway(), "echo-two", TWO | {"parameters": parameters, "outputs": asked}, TWO_DATA)
    found = taken_apart(answer)[0] if binary else answer.json()
    assert {output["name"] for output in found["outputs"] if "parameters" in output} == binary
    assert {output["name"] for output in found["outputs"] if "data" in output} == {"y1", "y2"} - binary


async def test_json_alone_under_a_header() -> None:
    """The header may stand with a body that is all JSON; the answer to it has none."""
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}
    answer = await post(EchoGateway(), "echo-FP32", body, b"")
    assert (answer.json()["outputs"][0]["data"], answer.header(b"inference-header-content-length")) == ([1.0], "")


async def test_bytes_and_json_are_one_request() -> None:
    """A request of bytes is answered from the cache by what JSON has asked before, each in its own form."""
    gateway = EchoGateway()
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}
    assert (await gateway.rest("POST", "/v2/models/echo-FP32/infer", body)).header(b"x-cache") == "MISS"
    body = {"inputs": [tensor("x", "FP32", [1], 4)], "parameters": {"binary_data_output": True}}
    answer = await post(gateway, "echo-FP32", body, b"\0\0\x80\x3f")
    assert (answer.header(b"x-cache"), taken_apart(answer)[1]) == ("HIT", b"\0\0\x80\x3f")


async def test_what_json_cannot_hold() -> None:
    """An output of bytes that are no text is refused as JSON, with the way to get it; and that way works."""
    gateway = EchoGateway()
    body: dict[str, Any] = {"inputs": [tensor("x", "BYTES", [1], 5)]}
    answer = await post(gateway, "echo-BYTES", body, pack_bytes([b"\xff"]))
    assert (answer.status, "'binary_data': true" in answer.json()["error"]) == (406, True)
    body["outputs"] = [{"name": "y", "parameters": {"binary_data": True}}]
    assert taken_apart(await post(gateway, "echo-BYTES", body, pack_bytes([b"\xff"])))[1] == pack_bytes([b"\xff"])


async def test_a_handlers_image() -> None:
    """A TorchServe handler takes an image as bytes, and gives one."""
    gateway = EchoGateway()
    gateway.answer, gateway.content_type = b"\x89PNG", "image/png"
    data = pack_bytes([b"\x89PNG\r\n"])
    body = {"inputs": [tensor("image", "BYTES", [1], len(data))], "parameters": {"binary_data_output": True}}
    found, behind = taken_apart(await post(gateway, "body", body, data))
    assert (found["outputs"], behind) == ([tensor("body", "BYTES", [1], 8)], pack_bytes([b"\x89PNG"]))
    assert gateway.torchserve.calls[0][1].inputs[0].data == data


@pytest.mark.parametrize(
    ("model", "body", "shape", "data"),
    [
        ("iris", struct.pack("<8f", *range(8)), [2, 4], struct.pack("<8f", *range(8))),
        ("sum", b"", None, None),
        ("text", b"abc", [1], pack_bytes([b"abc"])),
        ("digits", b"[1]", [1], pack_bytes([b"[1]"])),
    ],
)
async def test_a_body_without_json(
    gateway: SampleGateway, model: str, body: bytes, shape: list[int] | None, data: bytes | None
) -> None:
    """Under a header of 0 the whole body is the one input, shaped as the model says, and all answers are bytes."""
    answer = await post(gateway, model, b"", body, 0)
    if shape is None:
        assert (answer.status, "the one input; model 'sum' has 2" in answer.json()["error"]) == (400, True)
        return
    found, _ = taken_apart(answer)
    assert all("binary_data_size" in output["parameters"] for output in found["outputs"])
    ((_, request, _),) = gateway.tf_serving.calls + gateway.torchserve.calls
    assert (list(request.inputs[0].shape), request.inputs[0].data) == (shape, data)


@pytest.mark.parametrize(
    ("model", "body", "says"),
    [("iris", b"123", "takes 0 bytes, 3 were given"), ("half", bytes(8), "the model takes any shape")],
)
async def test_a_body_without_json_that_fits_nothing(
    gateway: SampleGateway, model: str, body: bytes, says: str
) -> None:
    """A body without JSON whose shape does not follow from its length is refused with the reason."""
    answer = await post(gateway, model, b"", body, 0)
    assert answer.status == 400
    assert says in answer.json()["error"]


X = tensor("x", "FP32", [2], 8)


@pytest.mark.parametrize(
    ("body", "data", "length", "says"),
    [
        ({"inputs": [X]}, b"1234567", None, "'x': its binary_data_size is 8, and 7 bytes are left"),
        ({"inputs": [X]}, b"123456789", None, "1 bytes behind the JSON belong to no input"),
        ({"inputs": [X]}, b"", None, "'x': its binary_data_size is 8, and 0 bytes are left"),
        ({"inputs": []}, b"1", None, "1 bytes behind the JSON belong to no input"),
        ({"inputs": [X, X]}, bytes(16), None, "was given input 'x' twice"),
        ({"inputs": [tensor("x", "FP32", [3], 8)]}, bytes(8), None, "FP32 of shape [3] takes 12 bytes, 8 were given"),
        ({"inputs": [tensor("x", "FP32", [1 << 62, 4], 8)]}, bytes(8), None, "takes 73786976294838206464 bytes"),
        ({"inputs": [tensor("x", "FP32", [-2], 8)]}, bytes(8), None, "'x': 'shape' has to be a list of sizes"),
        ({"inputs": [tensor("x", "FP33", [2], 8)]}, bytes(8), None, "datatype 'FP33' is none of"),
        ({"inputs": [tensor("x", "BOOL", [8], 8)]}, b"\0\1\2\0\0\0\0\0", None, "a BOOL is one byte, 0 or 1"),
        ({"inputs": [tensor("x", "BYTES", [1], 8)]}, b"\5\0\0\0abcd", None, "runs over the end"),
        ({"inputs": [tensor("x", "BYTES", [2], 8)]}, b"\4\0\0\0abcd", None, "holds 2 elements, the data 1"),
        ({"inputs": [tensor("x", "BYTES", [1], 3)]}, b"\4\0\0", None, "runs over the end"),
        ({"inputs": [tensor("x", "FP32", [2], -8)]}, b"", None, "Input 'x': 'binary_data_size' is below 0"),
        ({"inputs": [tensor("x", "FP32", [2], "8")]}, b"", None, "'binary_data_size' has to be a number of bytes"),
        ({"inputs": [tensor("x", "FP32", [2], 8.0)]}, b"", None, "'binary_data_size' has to be a number of bytes"),
        ({"inputs": [tensor("x", "FP32", [2], True)]}, b"", None, "'binary_data_size' has to be a number of bytes"),
        ({"inputs": [tensor("x", "FP32", [2], 1 << 62)]}, b"", None, "and 0 bytes are left"),
        ({"inputs": [X | {"data": [1, 2]}]}, bytes(8), None, "it has 'data' and 'binary_data_size'"),
        ({"inputs": [{"name": "x"} | {"parameters": {"binary_data_size": 8}}]}, bytes(8), None, "'x': 'shape' has to"),
        (
            {"inputs": [X], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]},
            bytes(8),
            None,
            "true or false",
        ),
        ({"inputs": [X], "parameters": {"binary_data_output": "yes"}}, bytes(8), None, "true or false"),
        ({"inputs": [X]}, bytes(8), 10, "not JSON"),
        ({"inputs": [X]}, bytes(8), 10_000, "says 10000 bytes of JSON, the body has"),
        ({"inputs": [X]}, bytes(8), "-1", "has to be a number of bytes, not '-1'"),
        ({"inputs": [X]}, bytes(8), "1e3", "has to be a number of bytes, not '1e3'"),
        ({"inputs": [X]}, bytes(8), "9" * 5000, "has to be a number of bytes"),
        ({"inputs": [X]}, bytes(8), "80, 80", "has to be a number of bytes, not '80, 80'"),
    ],
)
async def test_malformed_requests(body: Any, data: bytes, length: Any, says: str) -> None:
    """A request whose JSON, header and bytes do not agree is 400, says what is wrong, and reaches no model server."""
    gateway = EchoGateway()
    answer = await post(gateway, "echo-FP32", body, data, length)
    assert answer.status == 400
    assert says in answer.json()["error"]
    assert not gateway.tf_serving.calls


async def test_bytes_without_the_header() -> None:
    """Bytes behind the JSON without the header that says so are refused, and so is JSON that speaks of such bytes."""
    gateway = EchoGateway()
    text = json.dumps({"inputs": [X]}).encode()
    status, body = await gateway.refused("POST", "/v2/models/echo-FP32/infer", text + bytes(8))
    assert (status, "not JSON" in body["error"]) == (400, True)
    status, body = await gateway.refused("POST", "/v2/models/echo-FP32/infer", text)
    assert (status, "Inference-Header-Content-Length" in body["error"]) == (400, True)
