"""TF Serving over gRPC, as its clients see it."""

from typing import Any

import pytest

from asgi_client import Answer
from portico.wire import tensorflow_error_pb2 as tf_error
from portico.wire import tensorflow_pb2 as tf
from portico.wire import tf_serving_pb2 as tfs
from sample_gateway import LIMIT, PAST_CACHE, SampleGateway, parsed

PREDICT = "/tensorflow.serving.PredictionService/Predict"
METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"

INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 3, 5, 8, 12, 13, 14


def spec(name: str = "", version: int | None = None, label: str = "", signature: str = "") -> tfs.ModelSpec:
    message = tfs.ModelSpec(name=name, signature_name=signature)
    if version is not None:
        message.version.value = version
    if label:
        message.version_label = label
    return message


def proto(dtype: Any, *shape: int, **values: Any) -> tf.TensorProto:
    dims = [tf.TensorShapeProto.Dim(size=size) for size in shape]
    return tf.TensorProto(dtype=dtype, tensor_shape=tf.TensorShapeProto(dim=dims), **values)


ROW = proto(tf.DT_FLOAT, 1, 4, float_val=[0.5, 0.25, 1.0, 9.0])
INPUT = {"measurements": ROW}


async def predict(
    gateway: SampleGateway, model: tfs.ModelSpec, headers: Any = (), output_filter: Any = (), **inputs: tf.TensorProto
) -> Answer:
    return await gateway.grpc(
        PREDICT, tfs.PredictRequest(model_spec=model, inputs=inputs, output_filter=output_filter), headers
    )


async def test_predict(gateway: SampleGateway) -> None:
    """The answer has the outputs in typed fields, and the model, version and signature that answered."""
    response = parsed(await predict(gateway, spec("iris"), **INPUT), tfs.PredictResponse)
    assert response == tfs.PredictResponse(
        model_spec=spec("iris", 2, signature="serving_default"),
        outputs={
            "probabilities": proto(tf.DT_FLOAT, 1, 3, float_val=[0.5, 0.25, 1.0]),
            "species": proto(tf.DT_INT64, 1, int64_val=[2]),
        },
    )


@pytest.mark.parametrize(
    ("model", "version"),
    [
        (spec("iris"), 2),
        (spec("iris", 1), 1),
        (spec("iris", 2), 2),
        (spec("iris", label="stable"), 1),
        (spec("iris", label="canary"), 2),
    ],
    ids=["default", "1", "2", "stable", "canary"],
)
async def test_versions_and_labels(gateway: SampleGateway, model: tfs.ModelSpec, version: int) -> None:
    """A call goes to the version or label of its ModelSpec, and without one to the default."""
    response = parsed(await predict(gateway, model, **INPUT), tfs.PredictResponse)
    assert response.model_spec.version.value == version
    assert [route.version for route, _, _ in gateway.tf_serving.calls] == [str(version)]


async def test_tensor_content(gateway: SampleGateway) -> None:
    """A tensor in bytes is the same request as one in typed fields, or one whose last value repeats."""
    answers = [
        await predict(gateway, spec("half"), x=x)
        for x in (
            proto(tf.DT_FLOAT, 2, float_val=[3, 3]),
            proto(tf.DT_FLOAT, 2, tensor_content=b"\0\0\x40\x40" * 2),
            proto(tf.DT_FLOAT, 2, float_val=[3]),
        )
    ]
    assert [answer.header(b"x-cache") for answer in answers] == ["MISS", "HIT", "HIT"]
    for answer in answers:
        assert list(parsed(answer, tfs.PredictResponse).outputs["y"].float_val) == [1.5, 1.5]


async def test_strings(gateway: SampleGateway) -> None:
    """Strings are bytes, UTF-8 or not, in both directions."""
    answer = await predict(gateway, spec("text"), text=proto(tf.DT_STRING, 2, string_val=[b"a\xff", b""]))
    outputs = parsed(answer, tfs.PredictResponse).outputs
    assert list(outputs["upper"].string_val) == [b"A\xff", b""]
    assert list(outputs["raw_bytes"].string_val) == [b"\xffa\xff", b"\xff"]


async def test_the_output_filter(gateway: SampleGateway) -> None:
    """Of the outputs only those in the filter come back; one that the model does not have is refused."""
    answer = await predict(gateway, spec("iris"), output_filter=["species"], **INPUT)
    assert set(parsed(answer, tfs.PredictResponse).outputs) == {"species"}
    code, text = (await predict(gateway, spec("iris"), output_filter=["petal"], **INPUT)).grpc_status
    assert (code, "no output 'petal'" in text) == (INVALID_ARGUMENT, True)


async def test_the_cache(gateway: SampleGateway) -> None:
    """`x-cache` in the initial metadata tells a miss, a hit, and that a client wanted it fresh."""
    answers = [await predict(gateway, spec("iris"), headers, **INPUT) for headers in ((), (), PAST_CACHE)]
    assert [answer.header(b"x-cache") for answer in answers] == ["MISS", "HIT", "BYPASS"]
    assert len({answer.messages[0] for answer in answers}) == 1
    assert len(gateway.tf_serving.calls) == 2


async def test_the_default_signature_by_its_name(gateway: SampleGateway) -> None:
    """Naming the default signature is the same request as naming none, to the cache as well."""
    await predict(gateway, spec("iris"), **INPUT)
    answer = await predict(gateway, spec("iris", signature="serving_default"), **INPUT)
    assert answer.header(b"x-cache") == "HIT"


async def test_a_model_of_the_other_server(gateway: SampleGateway) -> None:
    """A TorchServe model is called in tensors like any other, and answers in tensors."""
    response = parsed(await predict(gateway, spec("digits"), image=ROW), tfs.PredictResponse)
    assert list(response.outputs["digit"].int64_val) == [7]
    assert list(response.outputs["probabilities"].double_val) == [0.25, 0.75]
    assert (response.model_spec.name, response.model_spec.HasField("version")) == ("digits", False)
    code, text = (await predict(gateway, spec("digits"), output_filter=["letter"], image=ROW)).grpc_status
    assert (code, "no output 'letter'. Its outputs: digit, probabilities" in text) == (INVALID_ARGUMENT, True)


@pytest.mark.parametrize(
    ("model", "inputs", "says"),
    [
        (spec(), INPUT, "Missing ModelSpec"),
        (spec("iris"), {}, "also takes input 'measurements' (FP32 [-1, 4])"),
        (spec("iris"), {"x": ROW}, "no input 'x'. Its inputs: 'measurements' (FP32 [-1, 4])"),
        (spec("iris"), {"measurements": proto(tf.DT_DOUBLE, 1, 4)}, "given FP64 [1, 4], the model takes FP32 [-1, 4]"),
        (spec("iris"), {"measurements": proto(tf.DT_FLOAT, 4)}, "given FP32 [4], the model takes FP32 [-1, 4]"),
        (spec("iris"), {"measurements": proto(tf.DT_FLOAT, 1, -1)}, "'measurements': its tensor_shape [1, -1]"),
        (spec("iris"), {"measurements": proto(tf.DT_COMPLEX64, 1)}, "'measurements': tensors of dtype DT_COMPLEX64"),
        (spec("iris"), {"measurements": proto(tf.DT_FLOAT, 1, 4, tensor_content=b"abc")}, "takes 16 bytes, 3 were"),
        (spec("iris", signature="no"), INPUT, 'Serving signature key "no" not found. Model'),
        (
            spec("digits", signature="triple"),
            INPUT,
            "'digits' has no signature 'triple': TorchServe declares none",
        ),
        (spec("iris", signature="train"), INPUT, "no signature 'train'. Its signatures: 'classify', 'serving_default'"),
        (spec("iris", signature="classify"), INPUT, "no input 'measurements'. Its inputs: 'examples'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_bad_requests(gateway: SampleGateway, model: Any, inputs: Any, says: str) -> None:
    """A request that cannot be answered is INVALID_ARGUMENT, says what is wrong, and reaches no model server."""
    code, text = (await predict(gateway, model, **inputs)).grpc_status
    assert code == INVALID_ARGUMENT
    assert says in text
    assert not gateway.tf_serving.calls


@pytest.mark.parametrize("method", [PREDICT, METADATA, STATUS])
async def test_a_message_that_is_none(gateway: SampleGateway, method: str) -> None:
    """Bytes that are no message of the method are INVALID_ARGUMENT, with the message that was expected."""
    code, text = (await gateway.grpc(method, b"\xff\xff")).grpc_status
    assert (code, "Request" in text) == (INVALID_ARGUMENT, True)


@pytest.mark.parametrize(
    ("model", "code", "says"),
    [
        (spec("iriss"), NOT_FOUND, "Servable not found for request: Latest(iriss)"),
        (spec("iris", 9), NOT_FOUND, "Servable not found for request: Specific(iris, 9)"),
        (spec("iris", -1), NOT_FOUND, "Specific(iris, -1)"),
        (spec("iris", label="new"), NOT_FOUND, "Unrecognized servable version label: new"),
        (spec("loading"), UNAVAILABLE, "it is being loaded"),
        (spec("refused"), UNAVAILABLE, "refused is failed for a reason"),
        (spec("damaged"), UNAVAILABLE, "damaged is quarantined for a reason"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("method", [PREDICT, METADATA])
async def test_models_that_cannot_answer(gateway: SampleGateway, method: str, model: Any, code: int, says: str) -> None:
    """A model that is not there is NOT_FOUND in TF Serving's words, one not ready UNAVAILABLE with the reason."""
    kind = tfs.PredictRequest if method == PREDICT else tfs.GetModelMetadataRequest
    found, text = (await gateway.grpc(method, kind(model_spec=model))).grpc_status
    assert found == code
    assert says in text


async def test_a_model_name_as_long_as_a_message(gateway: SampleGateway) -> None:
    """A name as long as a message may be is NOT_FOUND, in a text that fits into a header."""
    code, text = (await predict(gateway, spec("x" * (LIMIT - 1000)), **INPUT)).grpc_status
    assert (code, "Servable not found" in text, len(text) < 1000) == (NOT_FOUND, True, True)


async def test_failures_behind(gateway: SampleGateway) -> None:
    """A model that fails is INTERNAL with its text, a model server that is gone UNAVAILABLE."""
    x = proto(tf.DT_FLOAT, 1, float_val=[1])
    assert (await predict(gateway, spec("fails"), x=x)).grpc_status == (INTERNAL, "the graph divided by zero")
    gateway.tf_serving.go_down()
    assert (await predict(gateway, spec("half"), x=x)).grpc_status[0] == UNAVAILABLE


async def test_the_deadline_reaches_the_model_server(gateway: SampleGateway) -> None:
    """The client's deadline is the model server's, less what has been spent, where nobody else waits for the answer."""
    await predict(gateway, spec("iris"), [(b"grpc-timeout", b"3S"), *PAST_CACHE], **INPUT)
    _, _, timeout = gateway.tf_serving.calls[0]
    assert 0 < timeout <= 3


async def test_too_large(gateway: SampleGateway) -> None:
    """A message over the limit is RESOURCE_EXHAUSTED with the limit."""
    x = proto(tf.DT_FLOAT, LIMIT, tensor_content=bytes(4 * LIMIT))
    code, text = (await predict(gateway, spec("half"), x=x)).grpc_status
    assert (code, f"{LIMIT} bytes" in text) == (RESOURCE_EXHAUSTED, True)


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": proto(tf.DT_FLOAT, 1 << 40)},
        {"x": proto(tf.DT_STRING, 1 << 40, string_val=[b"a"])},
        {f"x{number}": proto(tf.DT_FLOAT, 1 << 16, float_val=[1]) for number in range(100)},
    ],
    ids=["numbers", "strings", "many inputs"],
)
async def test_a_small_message_that_asks_for_much(gateway: SampleGateway, inputs: Any) -> None:
    """A small message that leaves out most of large tensors is INVALID_ARGUMENT, and reaches no model server."""
    code, text = (await predict(gateway, spec("half"), **inputs)).grpc_status
    assert (code, "were given" in text) == (INVALID_ARGUMENT, True)
    assert not gateway.tf_serving.calls


async def test_a_rank_that_no_tensor_has(gateway: SampleGateway) -> None:
    """A shape of thousands of dimensions is INVALID_ARGUMENT by their number."""
    code, text = (await predict(gateway, spec("half"), x=proto(tf.DT_FLOAT, *[1] * 10_000))).grpc_status
    assert (code, text) == (INVALID_ARGUMENT, "Input 'x': a shape has up to 64 dimensions, not 10000.")


async def metadata(gateway: SampleGateway, model: tfs.ModelSpec, *fields: str) -> Answer:
    return await gateway.grpc(METADATA, tfs.GetModelMetadataRequest(model_spec=model, metadata_field=fields))


@pytest.mark.parametrize(("model", "version"), [(spec("iris"), 2), (spec("iris", label="stable"), 1)], ids=["2", "1"])
async def test_metadata(gateway: SampleGateway, model: tfs.ModelSpec, version: int) -> None:
    """Metadata holds every signature, packed as TF Serving packs it, and the version that it is of."""
    response = parsed(await metadata(gateway, model, "signature_def"), tfs.GetModelMetadataResponse)
    assert response.model_spec == spec("iris", version)
    packed = response.metadata["signature_def"]
    assert packed.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    signatures = tfs.SignatureDefMap.FromString(packed.value).signature_def
    assert set(signatures) == {"serving_default", "classify"}
    assert signatures["serving_default"].inputs["measurements"].name == "serving_default_measurements:0"


async def test_metadata_of_a_model_that_declares_none(gateway: SampleGateway) -> None:
    """It has what its handler reads and answers as they are, and can be called so."""
    response = parsed(await metadata(gateway, spec("digits"), "signature_def"), tfs.GetModelMetadataResponse)
    signatures = tfs.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    (default,) = signatures.signature_def.items()
    assert (default[0], list(default[1].inputs), list(default[1].outputs)) == ("serving_default", ["body"], ["body"])
    assert default[1].inputs["body"].dtype == tf.DT_STRING
    shape = tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=1)])
    body = tf.TensorProto(dtype=tf.DT_STRING, tensor_shape=shape, string_val=[b"pixels"])
    answer = parsed(await predict(gateway, spec("digits"), output_filter=["body"], body=body), tfs.PredictResponse)
    assert list(answer.outputs["body"].string_val) == [b'{"digit": 7, "probabilities": [0.25, 0.75]}']


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ((), "must specify at least one metadata_field"),
        (("signature_def", "weights"), "field weights is not supported"),
    ],
)
async def test_metadata_fields(gateway: SampleGateway, fields: tuple[str, ...], says: str) -> None:
    """Metadata of no field, or of one that there is not, is INVALID_ARGUMENT in TF Serving's words."""
    code, text = (await metadata(gateway, spec("iris"), *fields)).grpc_status
    assert (code, says in text) == (INVALID_ARGUMENT, True)


async def status(gateway: SampleGateway, model: tfs.ModelSpec) -> list[tuple[int, int, int, str]]:
    answer = await gateway.grpc(STATUS, tfs.GetModelStatusRequest(model_spec=model))
    versions = parsed(answer, tfs.GetModelStatusResponse).model_version_status
    return [(entry.version, entry.state, entry.status.error_code, entry.status.error_message) for entry in versions]


async def test_status(gateway: SampleGateway) -> None:
    """Status lists all versions, newest first, or the one asked for by number or label."""
    available = tfs.ModelVersionStatus.AVAILABLE
    assert await status(gateway, spec("iris")) == [(2, available, 0, ""), (1, available, 0, "")]
    assert await status(gateway, spec("iris", 1)) == [(1, available, 0, "")]
    assert await status(gateway, spec("iris", label="canary")) == [(2, available, 0, "")]


async def test_status_of_what_is_not_ready(gateway: SampleGateway) -> None:
    """A version that cannot answer has TF Serving's state for it, and its reason."""
    state = tfs.ModelVersionStatus
    assert await status(gateway, spec("loading")) == [(1, state.LOADING, tf_error.OK, "")]
    assert await status(gateway, spec("damaged")) == [
        (3, state.END, tf_error.INVALID_ARGUMENT, "damaged is quarantined for a reason")
    ]
    assert await status(gateway, spec("refused")) == [
        (0, state.END, tf_error.UNKNOWN, "refused is failed for a reason")  # "1.0" is no number
    ]


@pytest.mark.parametrize("model", [spec("iriss"), spec("iris", 9), spec("iris", label="new")], ids=["name", "9", "new"])
async def test_status_of_what_is_not_there(gateway: SampleGateway, model: tfs.ModelSpec) -> None:
    """Status of an unknown model, version or label is NOT_FOUND; of no model INVALID_ARGUMENT."""
    answer = await gateway.grpc(STATUS, tfs.GetModelStatusRequest(model_spec=model))
    assert answer.grpc_status[0] == NOT_FOUND
    answer = await gateway.grpc(STATUS, tfs.GetModelStatusRequest())
    assert answer.grpc_status[0] == INVALID_ARGUMENT


async def test_before_the_first_snapshot() -> None:
    """Before any routes have come, calls are UNAVAILABLE, and no model is unknown."""
    gateway = SampleGateway(routed=False)
    for method in (PREDICT, STATUS):
        message = tfs.PredictRequest(model_spec=spec("iris"))  # the first field of both messages
        code, text = (await gateway.grpc(method, message)).grpc_status
        assert (code, "controller" in text) == (UNAVAILABLE, True)


async def test_methods_that_are_not_there(gateway: SampleGateway) -> None:
    """A method that the gateway does not have is UNIMPLEMENTED, and named."""
    code, text = (await gateway.grpc("/tensorflow.serving.SessionService/SessionRun", b"")).grpc_status
    assert (code, "SessionRun" in text) == (UNIMPLEMENTED, True)
