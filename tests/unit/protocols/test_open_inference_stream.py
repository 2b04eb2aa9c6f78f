"""`ModelStreamInfer` of the Open Inference Protocol: requests on one stream, as tritonclient sends them."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from fakes import in_pieces
from grpc_conversation import Conversation
from portico.codecs.handler import raw_response
from portico.errors import Unavailable
from portico.inference import InferenceResponse
from portico.wire import open_inference_pb2 as oip
from sample_gateway import LIMIT, PAST_CACHE, SampleGateway

METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"
Input = oip.ModelInferRequest.InferInputTensor


def half(value: float, **fields: Any) -> bytes:
    x = Input(name="x", datatype="FP32", shape=[1], contents=oip.InferTensorContents(fp32_contents=[value]))
    return oip.ModelInferRequest(**{"model_name": "half", "inputs": [x]} | fields).SerializeToString()


def read(message: bytes) -> tuple[str, list[float]]:
    """(error, values)."""
    response = oip.ModelStreamInferResponse.FromString(message)
    assert response.infer_response.parameters["triton_final_response"].bool_param
    values = [value for output in response.infer_response.outputs for value in output.contents.fp32_contents]
    return response.error_message, values


async def test_requests_are_answered_in_their_order(gateway: SampleGateway) -> None:
    """Each request gets one response, in the order of the requests, however far ahead they were sent."""
    client = Conversation(METHOD).start(gateway.grpc_edge)
    client.say(*[half(2 * number, id=str(number)) for number in range(100)])
    client.half_close()
    messages = (await client.end()).messages
    assert [read(message) for message in messages] == [("", [float(number)]) for number in range(100)]
    ids = [oip.ModelStreamInferResponse.FromString(message).infer_response.id for message in messages]
    assert ids == [str(number) for number in range(100)]


async def test_a_conversation(gateway: SampleGateway) -> None:
    """A request is answered while the stream stays open."""
    client = Conversation(METHOD).start(gateway.grpc_edge)
    for number in (1.0, 2.0):
        client.say(half(2 * number))
        assert read(await client.hear()) == ("", [number])
    client.half_close()
    assert (await client.end()).grpc_status == (0, "")


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (half(1, model_name="hal", id="7"), "Did you mean half?"),
        (half(1, model_name="", id="7"), "'model_name' is empty"),
        (half(1, model_name="fails", id="7"), "the graph divided by zero"),
        (half(1, model_name="loading", id="7"), "it is being loaded"),
        (half(1, inputs=[], id="7"), "also takes input 'x'"),
        (b"\x0a\xff", "The message is no ModelInferRequest"),
    ],
)
async def test_a_request_that_fails(gateway: SampleGateway, message: bytes, says: str) -> None:
    """A request that fails is answered with its error and its id, and the stream goes on."""
    client = Conversation(METHOD).start(gateway.grpc_edge)
    client.say(message, half(2))
    failed = oip.ModelStreamInferResponse.FromString(await client.hear())
    assert says in failed.error_message
    assert failed.infer_response.id == ("7" if b"7" in message else "")
    assert not failed.infer_response.outputs
    assert read(await client.hear()) == ("", [1.0])


async def test_the_time_of_each_request() -> None:
    """A request has the time of a call; the stream has all the time it wants."""
    gateway = SampleGateway(timeout=0.1)
    client = Conversation(METHOD).start(gateway.grpc_edge)
    gateway.tf_serving.hang()
    client.say(half(2))
    error, _ = read(await client.hear())
    assert "not answer in time" in error or "No answer within" in error
    gateway.tf_serving.go_on()
    await asyncio.sleep(0.15)
    client.say(half(4))
    assert read(await client.hear()) == ("", [2.0])


async def test_the_deadline_of_the_stream() -> None:
    """A client's deadline is that of the whole stream, and of the call of the model that is under way."""
    gateway = SampleGateway()
    gateway.tf_serving.hang()
    client = Conversation(METHOD, [(b"grpc-timeout", b"100m"), *PAST_CACHE]).start(gateway.grpc_edge)
    client.say(half(2))
    assert (await client.end()).grpc_status[0] == 4
    assert gateway.tf_serving.calls[0][2] <= 0.1
    assert gateway.tf_serving.cancelled == 1


async def test_a_client_that_goes(gateway: SampleGateway) -> None:
    """A client that goes cancels the call of the model that is under way."""
    gateway.tf_serving.hang()
    client = Conversation(METHOD).start(gateway.grpc_edge)
    client.say(half(2))
    while not gateway.tf_serving.calls:
        await asyncio.sleep(0)
    client.leave()
    await client.end()
    assert gateway.tf_serving.cancelled == 1


async def test_a_message_over_the_limit(gateway: SampleGateway) -> None:
    """A message over the limit ends the stream, since what follows it cannot be found."""
    client = Conversation(METHOD).start(gateway.grpc_edge)
    client.say(bytes(LIMIT + 1))
    assert (await client.end()).grpc_status[0] == 8


async def test_the_cache_and_the_stream(gateway: SampleGateway) -> None:
    """Requests of a stream are answered from the cache, unless its metadata says that they are not to be."""
    for metadata, calls in (((), 1), ([(b"cache-control", b"no-cache")], 3)):
        client = Conversation(METHOD, metadata).start(gateway.grpc_edge)
        client.say(half(2), half(2))
        client.half_close()
        assert len((await client.end()).messages) == 2
        assert len(gateway.tf_serving.calls) == calls


def piece_request(**parameters: bool) -> bytes:
    request = oip.ModelInferRequest(model_name="plain", id="7", raw_input_contents=[b"\1\0\0\0x"])
    request.inputs.add(name="body", datatype="BYTES", shape=[1])
    for name, value in parameters.items():
        request.parameters[name].bool_param = value
    return request.SerializeToString()


def pieces(messages: list[bytes]) -> list[tuple[list[bytes], bool]]:
    """(what the outputs hold, whether it is said to be the last) of each."""
    found = []
    for message in messages:
        response = oip.ModelStreamInferResponse.FromString(message)
        assert (response.error_message, response.infer_response.id) == ("", "7")
        assert [output.name for output in response.infer_response.outputs] in ([], ["body"])
        contents = [content[4:] for content in response.infer_response.raw_output_contents]
        found.append((contents, response.infer_response.parameters["triton_final_response"].bool_param))
    return found


async def test_an_answer_in_pieces(gateway: SampleGateway) -> None:
    """A handler that answers in pieces is heard piece by piece, numbers too, and only the last is said to be it."""
    client = Conversation(METHOD).start(gateway.grpc_edge)
    for answer, told in (
        ((b"one", b"2", b"three"), [([b"one"], False), ([b"2"], False), ([b"three"], True)]),
        ((b"alone",), [([b"alone"], True)]),
    ):
        gateway.torchserve.servables["plain-1.0--loaded"] = lambda request, answer=answer: in_pieces(*answer)  # type: ignore[misc]
        client.say(piece_request())
        assert pieces([await client.hear() for _ in told]) == told
    client.half_close()
    assert (await client.end()).grpc_status == (0, "")


async def test_an_empty_end(gateway: SampleGateway) -> None:
    """A client that takes an empty response as the end gets each piece at once, and no empty one after a whole."""
    gateway.torchserve.servables["plain-1.0--loaded"] = lambda request: in_pieces(b"one", b"two")
    client = Conversation(METHOD).start(gateway.grpc_edge)
    client.say(piece_request(triton_enable_empty_final_response=True))
    assert pieces([await client.hear() for _ in range(3)]) == [([b"one"], False), ([b"two"], False), ([], True)]
    client.say(half(2, id="7", parameters={"triton_enable_empty_final_response": oip.InferParameter(bool_param=True)}))
    assert read(await client.hear()) == ("", [1.0])


@pytest.mark.parametrize("empty", [True, False])
async def test_an_answer_that_breaks_off(empty: bool) -> None:
    """What came before a failure, or the end of a request's time, is heard; then the error, and the stream goes on."""
    gateway = SampleGateway(timeout=0.2)

    async def broken(*_: object) -> AsyncGenerator[InferenceResponse]:
        yield raw_response(b"one", "", partial=True)
        raise Unavailable("the handler failed")

    async def stopped(*_: object) -> AsyncGenerator[InferenceResponse]:
        yield raw_response(b"one", "", partial=True)
        await asyncio.sleep(20)

    client = Conversation(METHOD).start(gateway.grpc_edge)
    for source, says in ((broken, "the handler failed"), (stopped, "No answer within")):
        gateway.torchserve.stream = source  # type: ignore[method-assign,assignment]
        client.say(piece_request(triton_enable_empty_final_response=empty), half(2))
        assert pieces([await client.hear()]) == [([b"one"], False)]
        failed = oip.ModelStreamInferResponse.FromString(await client.hear())
        assert says in failed.error_message
        assert failed.infer_response.parameters["triton_final_response"].bool_param
        assert read(await client.hear()) == ("", [1.0])
