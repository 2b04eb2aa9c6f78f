"""Open Inference Protocol over gRPC, as its clients see it; `test_open_inference_stream.py` has its stream."""

import struct
from collections.abc import Iterable
from typing import Any

import pytest

from echo_models import DATATYPES, EchoGateway
from portico import __version__
from portico.codecs.handler import request_body
from portico.inference import InferenceResponse, Tensor, pack_bytes
from portico.routing import RouteTable, Server, State
from portico.wire import open_inference_pb2 as oip
from sample_gateway import LIMIT, PAST_CACHE, SampleGateway, model, parsed

SERVICE = "/inference.GRPCInferenceService/"
Input = oip.ModelInferRequest.InferInputTensor
Contents = oip.InferTensorContents
ROW = [0.5, 0.25, 1.0, 9.0]
MEASUREMENTS = Input(name="measurements", datatype="FP32", shape=[1, 4], contents=Contents(fp32_contents=ROW))


async def infer(gateway: SampleGateway, metadata: Any = (), **fields: Any) -> oip.ModelInferResponse:
    request = oip.ModelInferRequest(**fields)
    return parsed(await gateway.grpc(SERVICE + "ModelInfer", request, metadata), oip.ModelInferResponse)


async def refusal(gateway: SampleGateway, **fields: Any) -> tuple[int, str]:
    return (await gateway.grpc(SERVICE + "ModelInfer", oip.ModelInferRequest(**fields))).grpc_status


async def test_typed_contents(gateway: SampleGateway) -> None:
    """A call with typed contents is answered with typed contents, the model, the version that answered, and the id."""
    response = await infer(gateway, model_name="iris", id="42", inputs=[MEASUREMENTS])
    probabilities, species = response.outputs
    assert (response.model_name, response.model_version, response.id) == ("iris", "2", "42")
    assert (probabilities.name, probabilities.datatype, list(probabilities.shape)) == ("probabilities", "FP32", [1, 3])
    assert list(probabilities.contents.fp32_contents) == [0.5, 0.25, 1.0]
    assert (species.name, species.datatype, list(species.contents.int64_contents)) == ("species", "INT64", [2])
    assert not response.raw_output_contents


async def test_raw_contents(gateway: SampleGateway) -> None:
    """A call with raw contents is answered with raw contents, one for each output in their order."""
    raw = Input(name="measurements", datatype="FP32", shape=[1, 4])
    data = struct.pack("<4f", *ROW)
    response = await infer(gateway, model_name="iris", model_version="1", inputs=[raw], raw_input_contents=[data])
    assert (response.model_version, response.id) == ("1", "")
    assert [output.name for output in response.outputs] == ["probabilities", "species"]
    assert list(response.raw_output_contents) == [struct.pack("<3f", 0.5, 0.25, 1.0), struct.pack("<q", 2)]
    assert not any(output.HasField("contents") for output in response.outputs)


TYPED: dict[str, tuple[str, list[Any], bytes]] = {
    "BOOL": ("bool_contents", [True, False], b"\1\0"),
    "UINT8": ("uint_contents", [0, 255], b"\0\xff"),
    "UINT16": ("uint_contents", [0, 65535], b"\0\0\xff\xff"),
    "UINT32": ("uint_contents", [0, (1 << 32) - 1], bytes(4) + b"\xff" * 4),
    "UINT64": ("uint64_contents", [0, (1 << 64) - 1], bytes(8) + b"\xff" * 8),
    "INT8": ("int_contents", [-128, 127], b"\x80\x7f"),
    "INT16": ("int_contents", [-(1 << 15), -1], b"\x00\x80\xff\xff"),
    "INT32": ("int_contents", [-(1 << 31), -1], b"\0\0\0\x80\xff\xff\xff\xff"),
    "INT64": ("int64_contents", [-(1 << 63), -1], bytes(7) + b"\x80" + b"\xff" * 8),
    "FP32": ("fp32_contents", [1.0, float("-inf")], b"\0\0\x80\x3f\0\0\x80\xff"),
    "FP64": ("fp64_contents", [1.0, float("inf")], bytes(6) + b"\xf0\x3f" + bytes(6) + b"\xf0\x7f"),
    "BYTES": ("bytes_contents", [b"", b"\xff\0a"], pack_bytes([b"", b"\xff\0a"])),
}
"""Datatype → the field of two values, the values, and their bytes in the raw form."""


@pytest.mark.parametrize("datatype", TYPED)
async def test_every_datatype_typed(datatype: str) -> None:
    """Values of each datatype go in and come out of the field that the protocol has for them, with nothing lost."""
    field, values, data = TYPED[datatype]
    gateway = EchoGateway()
    x = Input(name="x", datatype=datatype, shape=[2, 1], contents=Contents(**{field: values}))
    (output,) = (await infer(gateway, model_name=f"echo-{datatype}", inputs=[x])).outputs
    assert (output.datatype, list(output.shape)) == (datatype, [2, 1])
    assert [(found.name, list(values)) for found, values in output.contents.ListFields()] == [(field, values)]
    assert gateway.tf_serving.calls[0][1].inputs[0].data == data


RAW = {datatype: data for datatype, (_, _, data) in TYPED.items()} | {
    "FP16": b"\0\x3c\0\x7e",
    "BF16": b"\x80\x3f\xc0\x7f",
}


@pytest.mark.parametrize("datatype", DATATYPES)
async def test_every_datatype_raw(datatype: str) -> None:
    """Bytes of each datatype go in and come out as they are, the 16-bit floats and NaN included."""
    x = Input(name="x", datatype=datatype, shape=[2])
    fields: dict[str, Any] = {"inputs": [x], "raw_input_contents": [RAW[datatype]]}
    response = await infer(EchoGateway(), model_name=f"echo-{datatype}", **fields)
    assert (response.outputs[0].datatype, list(response.raw_output_contents)) == (datatype, [RAW[datatype]])


@pytest.mark.parametrize("shape", [[], [0], [3, 0, 2], [1] * 64])
@pytest.mark.parametrize("raw", [False, True])
async def test_shapes(shape: list[int], raw: bool) -> None:
    """Scalars, tensors of nothing and of the highest rank are tensors like any other, typed and raw."""
    values = [] if 0 in shape else [1.5]
    data = struct.pack(f"<{len(values)}f", *values)
    x = Input(name="x", datatype="FP32", shape=shape, contents=None if raw else Contents(fp32_contents=values))
    response = await infer(EchoGateway(), model_name="echo-FP32", inputs=[x], raw_input_contents=[data] if raw else [])
    (output,) = response.outputs
    assert list(output.shape) == shape
    assert (list(response.raw_output_contents) == [data]) if raw else (list(output.contents.fp32_contents) == values)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
async def test_outputs_that_have_no_typed_contents(datatype: str) -> None:
    """Where one output has no typed contents all are raw, though the request was typed."""
    gateway = EchoGateway()
    outputs = (Tensor("h", datatype, (1,), b"\0\x3c"), Tensor("f", "FP32", (1,), struct.pack("<f", 1)))
    gateway.torchserve.servables["body-1.0--loaded"] = lambda _: InferenceResponse(outputs)
    body = Input(name="x", datatype="BYTES", shape=[1], contents=Contents(bytes_contents=[b"a"]))
    response = await infer(gateway, model_name="body", inputs=[body])
    assert list(response.raw_output_contents) == [b"\0\x3c", struct.pack("<f", 1)]
    assert not any(output.HasField("contents") for output in response.outputs)


async def test_wanted_outputs(gateway: SampleGateway) -> None:
    """Of the outputs only those asked for come back; one that there is not is refused with those that there are."""
    Wanted = oip.ModelInferRequest.InferRequestedOutputTensor  # noqa: N806 - it is a type
    response = await infer(gateway, model_name="iris", inputs=[MEASUREMENTS], outputs=[Wanted(name="species")])
    assert [output.name for output in response.outputs] == ["species"]
    code, text = await refusal(gateway, model_name="iris", inputs=[MEASUREMENTS], outputs=[Wanted(name="petal")])
    assert (code, "no output 'petal'. Its outputs: probabilities, species" in text) == (3, True)


async def test_the_cache(gateway: SampleGateway) -> None:
    """`x-cache` tells a miss, a hit, and that a client wanted it fresh; REST's answers are shared."""
    tensor = {"name": "measurements", "datatype": "FP32", "shape": [1, 4], "data": ROW}
    assert (await gateway.rest("POST", "/v2/models/iris/infer", {"inputs": [tensor]})).header(b"x-cache") == "MISS"
    for metadata, status in (((), "HIT"), (PAST_CACHE, "BYPASS")):
        request = oip.ModelInferRequest(model_name="iris", inputs=[MEASUREMENTS])
        answer = await gateway.grpc(SERVICE + "ModelInfer", request, metadata)
        assert (answer.header(b"x-cache"), answer.grpc_status[0]) == (status, 0)


def parameter(value: Any) -> oip.InferParameter:
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    return oip.InferParameter(**{kinds[type(value)]: value})


async def test_the_signature(gateway: SampleGateway) -> None:
    """The parameter `signature_name` chooses a TensorFlow model's signature."""
    code, text = await refusal(
        gateway, model_name="iris", inputs=[MEASUREMENTS], parameters={"signature_name": parameter("classify")}
    )
    assert (code, "Its inputs: 'examples' (BYTES [-1])" in text) == (3, True)


async def test_the_content_type_for_a_handler(gateway: SampleGateway) -> None:
    """The parameter `content_type` is a TorchServe handler's to read; a lone BYTES input is its body."""
    body = Input(name="image", datatype="BYTES", shape=[1], contents=Contents(bytes_contents=[b"\x89PNG"]))
    response = await infer(
        gateway, model_name="digits", inputs=[body], parameters={"content_type": parameter("image/png")}
    )
    assert [output.name for output in response.outputs] == ["digit", "probabilities"]
    assert request_body(gateway.torchserve.calls[0][1]) == (b"\x89PNG", "image/png")


@pytest.mark.parametrize(
    "value", [parameter(True), parameter(3), parameter(0.5), oip.InferParameter(uint64_param=1), oip.InferParameter()]
)
async def test_parameters_at_every_level(gateway: SampleGateway, value: oip.InferParameter) -> None:
    """Parameters of every type, and of none, may stand at the request, its inputs and its outputs."""
    x = Input(
        name="measurements",
        datatype="FP32",
        shape=[1, 4],
        contents=Contents(fp32_contents=ROW),
        parameters={"p": value},
    )
    wanted = oip.ModelInferRequest.InferRequestedOutputTensor(name="species", parameters={"p": value})
    zero = {"sequence_id": parameter(0), "sequence_start": parameter(False), "p": value}
    response = await infer(gateway, model_name="iris", inputs=[x], outputs=[wanted], parameters=zero)
    assert [output.name for output in response.outputs] == ["species"]


def x(datatype: str = "FP32", shape: Iterable[int] = (1,), **contents: Any) -> Input:
    return Input(name="x", datatype=datatype, shape=shape, contents=Contents(**contents) if contents else None)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"inputs": [x(fp32_contents=[1])], "raw_input_contents": [bytes(4)]},
            "'x' has contents in a request with raw",
        ),
        ({"inputs": [x()], "raw_input_contents": [bytes(4)] * 2}, "raw_input_contents has 2 entries for 1 inputs"),
        ({"inputs": [x(), x()], "raw_input_contents": [bytes(4)]}, "raw_input_contents has 1 entries for 2 inputs"),
        ({"raw_input_contents": [b""]}, "raw_input_contents has 1 entries for 0 inputs"),
        ({"inputs": [x()], "raw_input_contents": [bytes(5)]}, "FP32 of shape [1] takes 4 bytes, 5 were given"),
        ({"inputs": [x()], "raw_input_contents": [b""]}, "FP32 of shape [1] takes 4 bytes, 0 were given"),
        ({"inputs": [x(shape=[-1])], "raw_input_contents": [b""]}, "shape [-1] has a size below 0"),
        ({"inputs": [x(shape=[1 << 62, 1 << 62])], "raw_input_contents": [bytes(4)]}, "4 were given"),
        ({"inputs": [x(shape=[1] * 65)], "raw_input_contents": [bytes(4)]}, "up to 64 dimensions, not 65"),
        ({"inputs": [x("BOOL")], "raw_input_contents": [b"\2"]}, "a BOOL is one byte, 0 or 1"),
        ({"inputs": [x("BYTES")], "raw_input_contents": [b"\5\0\0\0a"]}, "runs over the end"),
        ({"inputs": [x("BYTES", [2])], "raw_input_contents": [b"\0\0\0\0"]}, "holds 2 elements, the data 1"),
        ({"inputs": [x("FLOAT")], "raw_input_contents": [bytes(4)]}, "datatype 'FLOAT' is none of"),
        ({"inputs": [x("FLOAT", fp32_contents=[1])]}, "datatype 'FLOAT' is none of"),
        ({"inputs": [x("")]}, "datatype '' is none of"),
        ({"inputs": [x("FP16", fp32_contents=[1])]}, "FP16 has no typed contents; send it in raw_input_contents"),
        ({"inputs": [x("BF16", uint_contents=[1])]}, "BF16 has no typed contents; send it in raw_input_contents"),
        ({"inputs": [x(fp64_contents=[1])]}, "FP32 goes into fp32_contents, not into fp64_contents"),
        ({"inputs": [x(fp32_contents=[1], int_contents=[1])]}, "FP32 goes into fp32_contents, not into int_contents"),
        ({"inputs": [x(fp32_contents=[1, 2])]}, "shape [1] holds 1 elements, its contents hold 2"),
        ({"inputs": [x()]}, "shape [1] holds 1 elements, its contents hold 0"),
        ({"inputs": [x(shape=[1 << 62], fp32_contents=[1])]}, "holds 4611686018427387904 elements"),
        ({"inputs": [x(shape=[-3], fp32_contents=[1])]}, "shape [-3] has a size below 0"),
        ({"inputs": [x("INT8", int_contents=[128])]}, "a value does not fit INT8"),
        ({"inputs": [x("UINT16", uint_contents=[65536])]}, "a value does not fit UINT16"),
        ({"inputs": [x("INT64", int64_contents=[1])]}, "given INT64 [1], the model takes FP32"),
        ({"inputs": [x(fp32_contents=[1])] * 2}, "was given input 'x' twice"),
        ({}, "also takes input 'x'"),
        ({"parameters": {"sequence_id": parameter(42)}}, "Portico keeps no sequences"),
        ({"parameters": {"sequence_id": parameter("a")}}, "Portico keeps no sequences"),
        ({"parameters": {"sequence_end": parameter(True)}}, "Portico keeps no sequences"),
        ({"parameters": {"sequence_id": parameter(0.5)}}, "'sequence_id' has to be a number or a string"),
        ({"parameters": {"signature_name": parameter(1)}}, "'signature_name' has to be a string"),
        ({"parameters": {"content_type": parameter(True)}}, "'content_type' has to be a string"),
        (
            {"inputs": [Input(name="x", parameters={"shared_memory_region": parameter("r")})]},
            "Input 'x': Portico has no shared memory with its clients",
        ),
        ({"outputs": [{"name": "y", "parameters": {"classification": parameter(3)}}]}, "Output 'y': 'classification'"),
        (
            {"outputs": [{"name": "y", "parameters": {"shared_memory_region": parameter("r")}}]},
            "Output 'y': Portico has",
        ),
        ({"outputs": [{"name": "y"}, {"name": "y"}]}, "Output 'y': it is asked for twice"),
    ],
)
async def test_bad_requests(fields: dict[str, Any], says: str) -> None:
    """A request that cannot be answered is INVALID_ARGUMENT, says what is wrong, and reaches no model server."""
    gateway = EchoGateway()
    code, text = await refusal(gateway, model_name="echo-FP32", **fields)
    assert code == 3
    assert says in text
    assert not gateway.tf_serving.calls


async def test_what_is_no_message(gateway: SampleGateway) -> None:
    """Bytes that are no message, or that hold a name that is no text, are INVALID_ARGUMENT with the message's name."""
    for method, message in (("ModelInfer", b"\x0a\xff"), ("ModelReady", b"\x0a\1\xff"), ("ModelMetadata", b"\7")):
        code, text = (await gateway.grpc(SERVICE + method, message)).grpc_status
        assert (code, f"The message is no {method}Request" in text) == (3, True)


@pytest.mark.parametrize(
    ("name", "version", "code", "says"),
    [
        ("", "", 3, "'model_name' is empty"),
        ("iriss", "", 5, "Did you mean iris?"),
        ("iris", "9", 5, "Versions of model 'iris': 1, 2"),
        ("loading", "", 14, "it is being loaded"),
        ("damaged", "", 14, "damaged is quarantined for a reason"),
    ],
)
async def test_models_that_cannot_answer(gateway: SampleGateway, name: str, version: str, code: int, says: str) -> None:
    """A model that is not there is NOT_FOUND with what there is; one that is not ready UNAVAILABLE with the reason."""
    found, text = await refusal(gateway, model_name=name, model_version=version, inputs=[MEASUREMENTS])
    assert found == code
    assert says in text


async def test_failures_behind(gateway: SampleGateway) -> None:
    """A model that fails is INTERNAL with its text, one that hangs DEADLINE_EXCEEDED, a large message is refused."""
    one = x(fp32_contents=[1])
    assert await refusal(gateway, model_name="fails", inputs=[one]) == (13, "the graph divided by zero")
    slow = SampleGateway(timeout=0.05)
    slow.tf_serving.hang()
    assert (await refusal(slow, model_name="half", inputs=[one]))[0] == 4
    assert (await gateway.grpc(SERVICE + "ModelInfer", bytes(LIMIT + 1))).grpc_status[0] == 8


async def test_server(gateway: SampleGateway) -> None:
    """The server lives, and tells the same of itself as over REST."""
    assert parsed(await gateway.grpc(SERVICE + "ServerLive", b""), oip.ServerLiveResponse).live
    found = parsed(await gateway.grpc(SERVICE + "ServerMetadata", b""), oip.ServerMetadataResponse)
    assert (found.name, found.version) == ("portico", __version__)
    told = (await gateway.rest("GET", "/v2")).json()
    assert told == {"name": found.name, "version": found.version, "extensions": list(found.extensions)}


async def test_server_ready(gateway: SampleGateway) -> None:
    """The server is ready when every model is that is to stay."""
    assert not parsed(await gateway.grpc(SERVICE + "ServerReady", b""), oip.ServerReadyResponse).ready
    leaving = model("old", Server.TORCHSERVE, {"1.0": State.DRAINING})
    gateway.routes.replace(RouteTable({"iris": gateway.routes.table.models["iris"], "old": leaving}))
    assert parsed(await gateway.grpc(SERVICE + "ServerReady", b""), oip.ServerReadyResponse).ready


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [
        ("iris", "", True),
        ("iris", "1", True),
        ("iris", "9", False),
        ("away", "", False),
        ("loading", "", False),
        ("not there yet", "", False),
    ],
)
async def test_model_ready(gateway: SampleGateway, name: str, version: str, ready: bool) -> None:
    """A model is ready when it can answer; one that is not there is not ready, so that clients can wait for it."""
    request = oip.ModelReadyRequest(name=name, version=version)
    assert parsed(await gateway.grpc(SERVICE + "ModelReady", request), oip.ModelReadyResponse).ready is ready


async def test_before_the_first_snapshot() -> None:
    """Before any routes have come nothing is ready, and other questions are UNAVAILABLE."""
    gateway = SampleGateway(routed=False)
    assert not parsed(await gateway.grpc(SERVICE + "ServerReady", b""), oip.ServerReadyResponse).ready
    assert not parsed(await gateway.grpc(SERVICE + "ModelReady", b""), oip.ModelReadyResponse).ready
    for method in ("ModelMetadata", "RepositoryIndex"):
        code, text = (await gateway.grpc(SERVICE + method, b"")).grpc_status
        assert (code, "controller" in text) == (14, True)


@pytest.mark.parametrize("name", ["iris", "half", "digits", "one named", "loading", "damaged"])
async def test_model_metadata(gateway: SampleGateway, name: str) -> None:
    """Metadata is that of REST, of every kind of model."""
    found = parsed(
        await gateway.grpc(SERVICE + "ModelMetadata", oip.ModelMetadataRequest(name=name)), oip.ModelMetadataResponse
    )
    told = (await gateway.rest("GET", f"/v2/models/{name.replace(' ', '%20')}")).json()
    for tensor in told["inputs"] + told["outputs"]:
        tensor.pop("parameters", None)  # the message has no such field
    assert told == {
        "name": found.name,
        "versions": list(found.versions),
        "platform": found.platform,
        "inputs": [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in found.inputs],
        "outputs": [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in found.outputs],
    }


async def test_metadata_of_what_is_not_there(gateway: SampleGateway) -> None:
    """Metadata of a model or version that is not there is NOT_FOUND."""
    for name, version in (("iriss", ""), ("iris", "9")):
        request = oip.ModelMetadataRequest(name=name, version=version)
        assert (await gateway.grpc(SERVICE + "ModelMetadata", request)).grpc_status[0] == 5


@pytest.mark.parametrize("ready", [False, True])
async def test_the_repository_index(gateway: SampleGateway, ready: bool) -> None:
    """The index is that of REST: every version of every model with its state and reason, or those that are ready."""
    request = oip.RepositoryIndexRequest(ready=ready)
    found = parsed(await gateway.grpc(SERVICE + "RepositoryIndex", request), oip.RepositoryIndexResponse)
    told = (await gateway.rest("POST", "/v2/repository/index", {"ready": ready})).json()
    assert told == [
        {"name": entry.name, "version": entry.version, "state": entry.state, "reason": entry.reason}
        for entry in found.models
    ]


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "RepositoryModelUnload"])
async def test_loading_by_a_call(gateway: SampleGateway, method: str) -> None:
    """Nobody loads or unloads a model but by its files, and a call that asks for it is told so."""
    code, text = (await gateway.grpc(SERVICE + method, oip.RepositoryModelLoadRequest(model_name="iris"))).grpc_status
    assert (code, "by their files" in text) == (7, True)


@pytest.mark.parametrize("method", ["ModelConfig", "ModelStatistics", "SystemSharedMemoryStatus", "TraceSetting"])
async def test_what_only_triton_has(gateway: SampleGateway, method: str) -> None:
    """Triton's own methods are UNIMPLEMENTED."""
    assert (await gateway.grpc(SERVICE + method, b"")).grpc_status[0] == 12
