"""Puts the controller together and runs it. Called by the command line; the only module of the controller that knows
settings.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from portico.acknowledgements import Acknowledgements
from portico.backplane import Backplane
from portico.cache_entries import CacheEntries
from portico.controller import heartbeat
from portico.controller.cache_api import CacheApi
from portico.controller.endpoints import Endpoints
from portico.controller.loaders import Loader, Status
from portico.controller.loaders.tf_serving import TFServing
from portico.controller.loaders.torchserve import TorchServe
from portico.controller.reconcile import Reconciler
from portico.controller.repository import Repository
from portico.controller.servable import Servable
from portico.controller.stage import Stage
from portico.controller.warmup import Connect, warm_up
from portico.controller.watch import watching
from portico.controller.work import Warmer
from portico.listener import listening
from portico.purges import Purges
from portico.redis_connection import open_redis
from portico.routing import Server
from portico.settings import ControllerSettings

_log = logging.getLogger(__name__)


async def run_controller(settings: ControllerSettings, connect: Connect, stop: asyncio.Event) -> None:
    """Runs the controller until `stop` is set. `connect` opens a backend on one replica, for warm-up requests."""
    async with open_controller(settings, connect) as reconciler:
        _log.info("serving what lies in %s", settings.model_repository)
        await reconciler.run(stop)


@asynccontextmanager
async def open_controller(settings: ControllerSettings, connect: Connect) -> AsyncIterator[Reconciler]:
    """A controller with all its connections, not running yet. None of the other parts need be there."""
    async with AsyncExitStack() as opened:
        redis = await opened.enter_async_context(open_redis(settings.redis))
        backplane, gateways = Backplane(redis), Acknowledgements(redis)
        stage = Stage(Path(settings.stage), Path(settings.model_repository))
        stage.prepare()
        endpoints = Endpoints(
            Path(settings.stage, "envoy"), settings.torchserve_grpc_port, settings.torchserve_rest_port
        )
        endpoints.prepare()
        loaders, absent = _loaders(settings, stage)
        for loader in loaders:
            opened.push_async_callback(loader.close)
        wake = asyncio.Event()
        models = Path(settings.model_repository)
        cache = CacheApi(CacheEntries(redis), backplane, Purges(redis).announce)
        await opened.enter_async_context(listening(settings.metrics_address, cache.routes()))
        watch = await opened.enter_async_context(watching(models, wake.set))
        repository = Repository(models, settings.settle, wake.set, watch.take, settings.scan_interval)
        opened.callback(repository.close)
        beat = heartbeat.default_path()
        yield Reconciler(
            repository,
            loaders,
            backplane,
            gateways,
            endpoints,
            stage,
            interval=settings.scan_interval,
            beat=lambda: heartbeat.beat(beat),
            absent=absent,
            wake=wake,
            warm=_warmer(settings, connect),
        )


def _warmer(settings: ControllerSettings, connect: Connect) -> Warmer:
    async def warm(address: str, servable: Servable, status: Status) -> None:
        await warm_up(
            connect,
            address,
            servable.route(status.signatures),
            Path(settings.model_repository),
            servable.warmup,
            settings.load_timeout,
            servable.options.workers or 1,
        )

    return warm


def _loaders(settings: ControllerSettings, stage: Stage) -> tuple[list[Loader], dict[Server, str]]:
    """An adapter for each server there is, and what to say of those that there are not."""
    loaders: list[Loader] = []
    absent: dict[Server, str] = {}
    if settings.tf_serving:
        loaders.append(TFServing(settings.tf_serving, stage, settings.load_timeout))
    else:
        absent[Server.TF_SERVING] = "there is no TF Serving: PORTICO_TF_SERVING is empty"
    if settings.torchserve_management:
        loaders.append(TorchServe(settings.torchserve_management, stage, settings.load_timeout))
    else:
        absent[Server.TORCHSERVE] = "there is no TorchServe: PORTICO_TORCHSERVE_MANAGEMENT is empty"
    return loaders, absent
