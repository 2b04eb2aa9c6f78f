"""gRPC's health service, as a client reads it."""

import asyncio

import pytest

from asgi_client import grpc_exchange
from portico.routing import RouteTable
from portico.wire import health_pb2 as health
from sample_gateway import SampleGateway, parsed, repository

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
Status = health.HealthCheckResponse.ServingStatus


async def check(gateway: SampleGateway, service: str) -> str:
    answer = await gateway.grpc(CHECK, health.HealthCheckRequest(service=service))
    return Status.Name(parsed(answer, health.HealthCheckResponse).status)


@pytest.mark.parametrize(
    ("service", "status"),
    [
        ("", "SERVING"),
        ("tensorflow.serving.PredictionService", "SERVING"),
        ("org.pytorch.serve.grpc.inference.InferenceAPIsService", "SERVING"),
        ("iris", "SERVING"),
        ("one named", "SERVING"),
        ("digits", "SERVING"),
        ("loading", "NOT_SERVING"),
        ("away", "NOT_SERVING"),
        ("refused", "NOT_SERVING"),
        ("damaged", "NOT_SERVING"),
    ],
)
async def test_check(gateway: SampleGateway, service: str, status: str) -> None:
    """The gateway, its services and each model have a health; a model's is that of its default version."""
    assert await check(gateway, service) == status


async def test_check_of_nothing(gateway: SampleGateway) -> None:
    """A name that nothing has is NOT_FOUND, as the protocol says."""
    answer = await gateway.grpc(CHECK, health.HealthCheckRequest(service="absent"))
    assert answer.grpc_status == (5, "There is no model and no service named 'absent'.")


async def test_a_gateway_without_routes_is_not_serving() -> None:
    """Before the controller has spoken nothing is known, not even that a model is not there."""
    gateway = SampleGateway(routed=False)
    assert [await check(gateway, service) for service in ("", "iris")] == ["NOT_SERVING", "NOT_SERVING"]


async def test_a_message_that_is_none(gateway: SampleGateway) -> None:
    """Bytes that are no request are refused."""
    code, text = (await gateway.grpc(CHECK, b"\xff")).grpc_status
    assert (code, text.startswith("The message is no HealthCheckRequest")) == (3, True)


async def test_watch(gateway: SampleGateway) -> None:
    """A watcher hears the status at once, and then each change: going, coming back; not what stays the same."""
    request = health.HealthCheckRequest(service="iris").SerializeToString()
    exchange = grpc_exchange(WATCH, request)
    watching = asyncio.create_task(exchange.run(gateway.grpc_edge))

    async def told(count: int) -> list[str]:
        async with asyncio.timeout(20):
            while len(exchange.answer.events) < count + 1:  # the headers are the first event
                await asyncio.sleep(0)
        bodies = [event["body"] for event in exchange.answer.events[1:]]
        return [Status.Name(health.HealthCheckResponse.FromString(body[5:]).status) for body in bodies]

    assert await told(1) == ["SERVING"]
    gateway.routes.replace(RouteTable(repository().models, 8))
    gateway.routes.replace(RouteTable({}, 9))
    assert await told(2) == ["SERVING", "SERVICE_UNKNOWN"]
    gateway.routes.replace(RouteTable(repository().models, 10))
    assert await told(3) == ["SERVING", "SERVICE_UNKNOWN", "SERVING"]
    exchange.leave()
    async with asyncio.timeout(20):
        await watching
