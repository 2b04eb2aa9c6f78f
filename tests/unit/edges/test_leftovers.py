"""Requests that end badly leave nothing for Python's collector of cycles, which looks seldom in a gateway: what they
held, bodies of up to the limit among it, would pile up meanwhile.
"""

import asyncio
import gc
import json
from collections.abc import Iterator

import pytest

from asgi_client import Exchange
from portico.inference import InferenceRequest
from portico.wire import open_inference_pb2 as oip
from sample_gateway import SampleGateway

INFER = "/inference.GRPCInferenceService/ModelInfer"
MANY = 5


def alive() -> int:
    """Requests that somebody holds."""
    return sum(isinstance(each, InferenceRequest) for each in gc.get_objects())


@pytest.fixture
def before() -> Iterator[int]:
    """How many there are; only reference counts free anything until the end of the test."""
    gc.collect()
    gc.disable()
    yield alive()
    gc.enable()


def rest(number: int) -> tuple[str, dict[str, object]]:
    """The path and the body of a request that nobody else sends."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1], "data": [float(number)]}
    return "/v2/models/{}/infer", {"inputs": [tensor]}


def grpc(model: str, number: int) -> oip.ModelInferRequest:
    """The same by gRPC."""
    request = oip.ModelInferRequest(model_name=model)
    request.inputs.add(name="x", datatype="FP32", shape=[1]).contents.fp32_contents.append(number)
    return request


def forgotten(gateway: SampleGateway) -> int:
    """Requests that are held by the gateway, and not by its fakes."""
    gateway.tf_serving.calls.clear()
    gateway.cache.leases.clear()
    return alive()


async def test_models_that_fail(before: int) -> None:
    """A model's error, told to all who wait for it."""
    gateway = SampleGateway()
    for number in range(MANY):
        path, body = rest(number)
        assert (await gateway.rest("POST", path.format("fails"), body)).status == 500
        assert (await gateway.grpc(INFER, grpc("fails", number + MANY))).trailers[0] != (b"grpc-status", b"0")
    assert forgotten(gateway) == before


@pytest.mark.parametrize("past", [True, False], ids=["past the cache", "cached"])
async def test_deadlines(before: int, past: bool) -> None:
    """A deadline that passes while the model is at work."""
    gateway = SampleGateway(timeout=0.02)
    gateway.tf_serving.hang()
    headers = [(b"cache-control", b"no-store")] if past else []
    for number in range(MANY):
        path, body = rest(number)
        assert (await gateway.rest("POST", path.format("half"), body, headers)).status == 504
        answer = await gateway.grpc(INFER, grpc("half", number + MANY), headers)
        assert dict(answer.trailers)[b"grpc-status"] == b"4"
    await asyncio.sleep(0.05)
    assert forgotten(gateway) == before


async def test_clients_that_go(before: int) -> None:
    """A client that leaves while the model is at work."""
    gateway = SampleGateway()
    gateway.tf_serving.hang()
    for number in range(MANY):
        path, body = rest(number)
        exchange = Exchange("POST", path.format("half"), json.dumps(body).encode(), (), eager=True)
        asked = asyncio.create_task(exchange.run(gateway.rest_edge))
        await asyncio.sleep(0.1)
        exchange.leave()
        assert (await asked).events == []
    await asyncio.sleep(0.05)
    assert forgotten(gateway) == before
