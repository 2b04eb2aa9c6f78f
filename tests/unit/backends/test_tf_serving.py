"""A TF Serving client's Predict to a TF Serving model: bytes that need no translation are not translated."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest

from asgi_client import Answer
from portico.backends.tf_serving import TFServing
from portico.codecs import stored
from portico.errors import InferenceFailed
from portico.freshness import Entry
from portico.inference import InferenceRequest
from portico.routing import Route, Server
from portico.wire import tensorflow_pb2 as tf
from portico.wire import tf_serving_pb2 as tfs
from sample_gateway import PAST_CACHE, SampleGateway, parsed, tensor

PREDICT = "/tensorflow.serving.PredictionService/Predict"
UNKNOWN = b"\xaa\x3e\x03abc"
"""Field 997 of a message: of some release that we do not know."""


def floats(*values: float, **more: Any) -> tf.TensorProto:
    shape = tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=len(values))])
    return tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=shape, float_val=values, **more)


def halve(request: tfs.PredictRequest) -> dict[str, tf.TensorProto]:
    """y = x / 2, whichever field x is in."""
    x = request.inputs["x"]
    values = np.frombuffer(x.tensor_content, "<f4").tolist() or list(x.float_val)
    return {"y": floats(*(value / 2 for value in values))}


class Served(grpc.GenericRpcHandler):
    """TF Serving as far as the adapter sees it. `messages` are the bytes it got; `compute` gives the outputs, and
    `suffix` stands after every answer.
    """

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.suffix = UNKNOWN
        self.compute: Callable[[tfs.PredictRequest], dict[str, tf.TensorProto]] = halve

    @property
    def requests(self) -> list[tfs.PredictRequest]:
        return [tfs.PredictRequest.FromString(message) for message in self.messages]

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        async def predict(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
            self.messages.append(message)
            request = tfs.PredictRequest.FromString(message)
            spec = request.model_spec
            try:
                outputs = self.compute(request)
            except ValueError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            answer = tfs.PredictResponse(model_spec=spec, outputs=outputs)
            answer.model_spec.signature_name = spec.signature_name or "serving_default"
            return answer.SerializeToString() + self.suffix

        assert call.method == PREDICT
        return grpc.unary_unary_rpc_method_handler(predict)


@asynccontextmanager
async def adapter(served: Served) -> AsyncIterator[TFServing]:
    server = grpc.aio.server(handlers=[served])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield TFServing(channel, 1 << 20)
    await server.stop(None)


@pytest.fixture
async def served() -> Served:
    return Served()


@pytest.fixture
async def gateway(served: Served) -> AsyncIterator[SampleGateway]:
    """The sample gateway, whose TF Serving models are asked by the real adapter."""
    made = SampleGateway()
    async with adapter(served) as backend:
        made.tf_serving.infer = backend.infer  # type: ignore[method-assign]
        yield made


def spec(name: str, version: int | None = None, label: str = "", signature: str = "") -> tfs.ModelSpec:
    message = tfs.ModelSpec(name=name, signature_name=signature)
    if version is not None:
        message.version.value = version
    if label:
        message.version_label = label
    return message


async def predict(gateway: SampleGateway, message: bytes, headers: Any = ()) -> Answer:
    return await gateway.grpc(PREDICT, message, headers)


def request(of: tfs.ModelSpec, x: tf.TensorProto, *outputs: str) -> bytes:
    return tfs.PredictRequest(model_spec=of, inputs={"x": x}, output_filter=outputs).SerializeToString()


@pytest.mark.parametrize("headers", [(), PAST_CACHE], ids=["cached", "fresh"])
async def test_the_message_goes_as_it_came(gateway: SampleGateway, served: Served, headers: Any) -> None:
    """TF Serving gets the client's bytes, fields that we do not know included, and its own name for the model; the
    client gets its bytes back, with the name that it knows."""
    message = request(spec("half"), floats(1, 2), "y") + UNKNOWN
    answer = await predict(gateway, message, headers)
    assert served.messages[0].startswith(message)
    asked = served.requests[0]
    assert asked.model_spec == spec("half-1--loaded", 1)
    assert list(asked.output_filter) == ["y"]
    (body,) = answer.messages
    assert UNKNOWN in body
    assert b"--loaded" not in body, "not even under the name that is read"
    response = parsed(answer, tfs.PredictResponse)
    assert response.model_spec == spec("half", 1, signature="serving_default")
    assert response.outputs == {"y": floats(0.5, 1)}


@pytest.mark.parametrize(
    "of",
    [spec("half"), spec("half", 1), spec("half", label="stable"), spec("half", 1, signature="serving_default")],
    ids=["default", "version", "label", "signature"],
)
async def test_what_the_client_named_is_resolved_here(of: tfs.ModelSpec, served: Served) -> None:
    """TF Serving is told the version that the gateway resolved; a label, which it does not know, is gone."""
    route = Route("half", "1", Server.TF_SERVING, "half--0123456789ab", "1", "print")
    async with adapter(served) as backend:
        x = tensor("x", "FP32", "<f4", [1])
        await backend.infer(route, InferenceRequest((x,), native=request(of, floats(1))), 10.0)
    found = served.requests[0].model_spec
    assert found == spec("half--0123456789ab", 1, signature=of.signature_name)


async def test_the_cache_is_shared_with_other_protocols(gateway: SampleGateway, served: Served) -> None:
    """An answer that was passed on as it came is kept as tensors: other protocols find it, and it finds theirs."""
    assert (await predict(gateway, request(spec("half"), floats(1, 2)))).header(b"x-cache") == "MISS"
    by_rest = await gateway.rest("POST", "/v1/models/half:predict", {"instances": [1, 2]})
    assert (by_rest.header(b"x-cache"), by_rest.json()) == ("HIT", {"predictions": [0.5, 1.0]})
    await gateway.rest("POST", "/v1/models/half:predict", {"instances": [8]})
    answer = await predict(gateway, request(spec("half"), floats(8)))
    assert (answer.header(b"x-cache"), len(served.messages)) == ("HIT", 2)
    assert parsed(answer, tfs.PredictResponse).outputs == {"y": floats(4)}


async def test_what_is_kept_reads_back(served: Served) -> None:
    """The cache keeps the tensors of a native answer, and its size is known before they are read."""
    route = Route("half", "1", Server.TF_SERVING, "half-1--loaded", "1", "print")
    async with adapter(served) as backend:
        x = tensor("x", "FP32", "<f4", [1, 2])
        response = await backend.infer(route, InferenceRequest((x,), native=request(spec("half"), floats(1, 2))), 10.0)
        plain = await backend.infer(route, InferenceRequest((x,)), 10.0)
    assert response.size == len(response.native) > plain.size == 8
    kept = stored.load(stored.dump(Entry.of(b"key", response, 60.0)))
    assert kept is not None
    assert kept.response == plain
    assert response.outputs == plain.outputs


@pytest.mark.parametrize("headers", [(), PAST_CACHE], ids=["cached", "fresh"])
async def test_outputs_that_only_tensorflow_knows(gateway: SampleGateway, served: Served, headers: Any) -> None:
    """Complex numbers, which no other protocol has, reach a TF Serving client as they are; others read why they do
    not."""
    complex_numbers = tf.TensorProto(dtype=tf.DT_COMPLEX64, scomplex_val=[1, 2])
    served.compute = lambda request: {"y": complex_numbers}
    answer = await predict(gateway, request(spec("half"), floats(1)), headers)
    assert parsed(answer, tfs.PredictResponse).outputs == {"y": complex_numbers}
    gateway.cache.entries.clear()
    status, error = await gateway.refused("POST", "/v1/models/half:predict", {"instances": [1]})
    assert (status, "dtype DT_COMPLEX64" in error["error"]) == (500, True)


async def test_an_answer_that_cannot_be_read(served: Served) -> None:
    """Asking a native answer for tensors that nobody can read is the model's failure, when it is asked."""
    route = Route("half", "1", Server.TF_SERVING, "half-1--loaded", "1", "print")
    served.compute = lambda request: {"y": tf.TensorProto(dtype=tf.DT_COMPLEX64)}
    async with adapter(served) as backend:
        x = tensor("x", "FP32", "<f4", [1])
        response = await backend.infer(route, InferenceRequest((x,), native=request(spec("half"), floats(1))), 10.0)
    with pytest.raises(InferenceFailed, match="cannot be passed on"):
        assert response.outputs


async def test_bad_requests_do_not_go_on(gateway: SampleGateway, served: Served) -> None:
    """What does not fit the model is refused here in our words, whether the cache is asked or not."""
    bad = [
        request(spec("half"), tf.TensorProto(dtype=tf.DT_DOUBLE)),
        request(spec("half", signature="train"), floats(1)),
        request(spec("half"), floats(1), "z"),
    ]
    for message in bad:
        for headers in ((), PAST_CACHE):
            code, text = (await predict(gateway, message, headers)).grpc_status
            assert (code, "--loaded" in text) == (3, False)
    assert not served.messages


def refuse(request: tfs.PredictRequest) -> dict[str, tf.TensorProto]:
    raise ValueError(f"tensor parsing error: x of {request.model_spec.name}")


async def test_values_that_are_no_tensor(gateway: SampleGateway, served: Served) -> None:
    """Values that do not make the shape are refused here where the cache's key needs them, else by TF Serving."""
    message = request(spec("half"), floats(1, 2, tensor_content=b"abc"))
    code, text = (await predict(gateway, message)).grpc_status
    assert (code, "takes 8 bytes, 3 were given" in text, served.messages) == (3, True, [])
    served.compute = refuse
    code, text = (await predict(gateway, message, PAST_CACHE)).grpc_status
    assert (code, text) == (3, "tensor parsing error: x of half")


async def test_an_answer_that_is_no_message(served: Served) -> None:
    """Bytes that are no PredictResponse are the model server's failure, and no error of ours."""
    route = Route("half", "1", Server.TF_SERVING, "half-1--loaded", "1", "print")
    served.suffix = b"\xff"
    async with adapter(served) as backend:
        with pytest.raises(InferenceFailed, match="cannot be passed on"):
            await backend.infer(route, InferenceRequest((tensor("x", "FP32", "<f4", [1]),)), 10.0)


@pytest.mark.parametrize(
    "x",
    [
        tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=floats(*[0] * 8).tensor_shape, float_val=[1]),
        tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=floats(*[0] * 8).tensor_shape),
    ],
    ids=["repeated", "zeros"],
)
async def test_values_that_are_left_out(gateway: SampleGateway, served: Served, x: tf.TensorProto) -> None:
    """A message that leaves out a few repeated values is passed on as it is."""
    await predict(gateway, request(spec("half"), x), PAST_CACHE)
    assert served.requests[0].inputs["x"] == x


@pytest.mark.parametrize("headers", [(), PAST_CACHE], ids=["cached", "fresh"])
@pytest.mark.parametrize(
    "x",
    [
        tf.TensorProto(dtype=tf.DT_FLOAT, float_val=[1]),
        tf.TensorProto(dtype=tf.DT_FLOAT, tensor_content=b"abcd"),
        tf.TensorProto(dtype=tf.DT_INT64),
    ],
    ids=["repeated", "content", "another datatype"],
)
async def test_a_small_message_that_asks_for_much(
    gateway: SampleGateway, served: Served, x: tf.TensorProto, headers: Any
) -> None:
    """A few bytes that stand for many do not go on: TF Serving would take memory for them."""
    x.tensor_shape.dim.add(size=1 << 40)
    code, text = (await predict(gateway, request(spec("half"), x), headers)).grpc_status
    assert (code, "'x'" in text, served.messages) == (3, True, [])


async def test_strings_that_are_left_out(gateway: SampleGateway, served: Served) -> None:
    """A string that stands for more of its kind is counted in full."""
    x = tf.TensorProto(dtype=tf.DT_STRING, string_val=[b"a" * 10_000])
    x.tensor_shape.dim.add(size=1000)
    message = tfs.PredictRequest(model_spec=spec("text"), inputs={"text": x}).SerializeToString()
    code, text = (await predict(gateway, message, PAST_CACHE)).grpc_status
    assert (code, "1 were given" in text, served.messages) == (3, True, [])
