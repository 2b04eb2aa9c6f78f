"""Puts the controller together and runs it. Called by the command line; the only module of the controller that knows
settings.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from portico.backplane import Backplane
from portico.controller import heartbeat
from portico.controller.loaders import Loader
from portico.controller.loaders.tf_serving import TFServing
from portico.controller.loaders.torchserve import TorchServe
from portico.controller.reconcile import Reconciler
from portico.controller.repository import Repository
from portico.routing import Server
from portico.settings import ControllerSettings

SETTLE = 1.0
"""Seconds for which files must have stayed the same before they are judged."""

_log = logging.getLogger(__name__)


async def run_controller(settings: ControllerSettings, stop: asyncio.Event) -> None:
    """Runs the controller until `stop` is set."""
    async with open_controller(settings) as reconciler:
        _log.info("serving what lies in %s", settings.model_repository)
        await reconciler.run(stop)


@asynccontextmanager
async def open_controller(settings: ControllerSettings) -> AsyncIterator[Reconciler]:
    """A controller with all its connections, not running yet. None of the other parts need be there."""
    async with AsyncExitStack() as stack:
        backplane = await stack.enter_async_context(Backplane.connect(settings.redis_url))
        loaders, absent = _loaders(settings)
        for loader in loaders:
            stack.push_async_callback(loader.close)
        wake = asyncio.Event()
        repository = Repository(Path(settings.model_repository), SETTLE, wake.set)
        stack.callback(repository.close)
        beat = heartbeat.default_path()
        yield Reconciler(
            repository,
            loaders,
            backplane,
            interval=settings.scan_interval,
            beat=lambda: heartbeat.beat(beat),
            absent=absent,
            wake=wake,
        )


def _loaders(settings: ControllerSettings) -> tuple[list[Loader], dict[Server, str]]:
    """An adapter for each server there is, and what to say of those that there are not."""
    loaders: list[Loader] = []
    absent: dict[Server, str] = {}
    if settings.tf_serving:
        repository = Path(settings.model_repository)
        loaders.append(TFServing(settings.tf_serving, repository, settings.tf_serving_models, settings.load_timeout))
    else:
        absent[Server.TF_SERVING] = "there is no TF Serving: PORTICO_TF_SERVING is empty"
    if settings.torchserve_management:
        loaders.append(TorchServe(settings.torchserve_management, settings.load_timeout))
    else:
        absent[Server.TORCHSERVE] = "there is no TorchServe: PORTICO_TORCHSERVE_MANAGEMENT is empty"
    return loaders, absent
