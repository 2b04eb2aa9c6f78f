"""The composition root: the only module that knows all the others, and puts them together."""

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp

from portico.acknowledgements import Acknowledgements
from portico.backends.channel import open_channel
from portico.backends.tf_serving import TFServing
from portico.backends.torchserve import TorchServe
from portico.backplane import Backplane
from portico.caching.redis import SILENCE, RedisCache
from portico.dispatch import Dispatcher, Limits
from portico.edges.application import Application
from portico.edges.asgi import App
from portico.edges.draining import Draining, end_process
from portico.edges.grpc import GrpcEdge
from portico.edges.memory import Memory
from portico.edges.operations import operations
from portico.edges.pyvoy import ignore_late_answers
from portico.edges.rest import RestEdge
from portico.listener import CannotListen, listening
from portico.meters import MemoryMeter, PrometheusMeter
from portico.ports import Backend
from portico.protocols.documentation.endpoints import Documentation
from portico.protocols.health_grpc import HealthGrpc
from portico.protocols.listing import Listing
from portico.protocols.open_inference_grpc import OpenInferenceGrpc
from portico.protocols.open_inference_rest import OpenInferenceRest
from portico.protocols.reflection_grpc import ReflectionGrpc
from portico.protocols.tf_serving_grpc import TFServingGrpc
from portico.protocols.tf_serving_rest import TFServingRest
from portico.protocols.torchserve_grpc import TorchServeGrpc
from portico.protocols.torchserve_models import TorchServeModels
from portico.protocols.torchserve_rest import TorchServeRest
from portico.purges import Purges
from portico.redis_connection import open_redis
from portico.routing import LiveRoutes, Server
from portico.settings import ControllerSettings, GatewaySettings
from portico.warming import Replicas

REDIS_CONNECTIONS = 64
MODEL_SERVER_CONNECTIONS = 1024


def gateway(settings: GatewaySettings) -> Application:
    """The gateway's ASGI application. Nothing is opened before the server runs its lifespan."""
    draining = Draining()
    return Application(lambda: _open_gateway(settings, draining), draining)


@asynccontextmanager
async def _open_gateway(settings: GatewaySettings, draining: Draining) -> AsyncIterator[tuple[App, App]]:
    log_to_stderr(settings.log_level)
    ignore_late_answers()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(draining.on(signal.SIGTERM, end_process))
        backends = await _open_backends(stack, settings)
        cache = await _open_cache(stack, settings) if settings.cache else None
        routes, meter = LiveRoutes(), PrometheusMeter()
        memory = Memory(routes, settings.cache_memory if settings.cache else 0, MemoryMeter(meter))
        redis = await stack.enter_async_context(open_redis(settings.redis))
        await stack.enter_async_context(Backplane(redis).following(routes.replace))
        await stack.enter_async_context(Purges(redis).following(memory.purge))
        await stack.enter_async_context(Acknowledgements(redis).telling(routes))
        await stack.enter_async_context(listening(settings.metrics_address))
        limits = Limits(settings.cache_ttl, settings.cache_max_entry_bytes, settings.request_timeout)
        dispatcher = Dispatcher(routes, backends, cache, limits, meter)
        stack.push_async_callback(dispatcher.aclose)
        _collect_seldom()
        logging.getLogger(__name__).info("serving at %s:%d", settings.host, settings.port)
        yield _edges(settings, dispatcher, routes, memory, operations(routes, backends, draining))


def _collect_seldom() -> None:
    """What was made by now lives as long as the process, and requests leave hardly any cycles behind: Python by itself
    looks for them after each 700 objects, and now and then through all there are, which takes 50 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


async def _open_backends(stack: AsyncExitStack, settings: GatewaySettings) -> dict[Server, Backend]:
    limit = settings.max_message_bytes
    channel = await stack.enter_async_context(open_channel(settings.model_server, limit))
    connector = aiohttp.TCPConnector(limit=MODEL_SERVER_CONNECTIONS)
    # Clients share it: no cookies of one handler's answer may go along with another's request.
    session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False)
    http = await stack.enter_async_context(session)
    return {
        Server.TF_SERVING: TFServing(channel, limit),
        Server.TORCHSERVE: TorchServe(channel, http, f"http://{settings.model_server}", limit),
    }


async def _open_cache(stack: AsyncExitStack, settings: GatewaySettings) -> RedisCache:
    # Each request has its own patience; a connection is given up when it has been silent for longer.
    silence = max(SILENCE, settings.redis_timeout)
    redis = await stack.enter_async_context(open_redis(settings.redis, silence, REDIS_CONNECTIONS))
    cache = RedisCache(redis, settings.redis_timeout)
    stack.push_async_callback(cache.aclose)
    await cache.open()
    return cache


def _edges(
    settings: GatewaySettings, dispatcher: Dispatcher, routes: LiveRoutes, memory: Memory, fallback: App
) -> tuple[App, App]:
    """(gRPC edge, REST edge). A new protocol is one file in `protocols/` and one line here."""
    limit, timeout = settings.max_message_bytes, settings.request_timeout
    rest = (
        OpenInferenceRest(dispatcher),
        TFServingRest(dispatcher),
        TorchServeRest(dispatcher),
        TorchServeModels(dispatcher),
        Listing(dispatcher),
        Documentation(dispatcher),
    )
    grpc = (OpenInferenceGrpc(dispatcher, timeout), TFServingGrpc(dispatcher), TorchServeGrpc(dispatcher))
    methods = [method for protocol in grpc for method in protocol.methods()]
    services = sorted({method.service for method in methods})
    methods += HealthGrpc(routes, services).methods()
    methods += ReflectionGrpc(sorted({method.service for method in methods})).methods()
    return (
        GrpcEdge(methods, memory, limit, timeout),
        RestEdge(
            [endpoint for protocol in rest for endpoint in protocol.endpoints()], fallback, memory, limit, timeout
        ),
    )


def run_controller(settings: ControllerSettings) -> int:
    """Runs the controller until SIGTERM or SIGINT. Returns the exit code."""
    from portico.controller import service  # the gateway has no use for it

    log_to_stderr(settings.log_level)

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        replicas = Replicas(settings.torchserve_grpc_port, settings.torchserve_rest_port)
        await service.run_controller(settings, replicas.connect, stop)

    try:
        asyncio.run(run())
    except CannotListen as error:
        logging.getLogger(__name__).error("the controller could not start: %s", error)
        return 1
    return 0


class _OneLine(logging.Formatter):
    """Names of files and words of model servers go into the log, and must not be able to write lines of their own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class calls it that
        text = super().formatMessage(record)
        return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def log_to_stderr(level: str) -> None:
    """One line per event on standard error, for the process that calls it; more only for tracebacks."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
