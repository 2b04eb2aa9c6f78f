"""Backends on single replicas, for the controller's warm-up requests: model servers called past the balancer. Given to
the controller by `bootstrap`; it knows nothing of files and plans.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import aiohttp

from portico.backends.channel import open_channel
from portico.backends.tf_serving import TFServing
from portico.backends.torchserve import TorchServe
from portico.ports import Backend
from portico.routing import Server

MAX_BYTES = 1 << 30
"""Size of the largest message: whatever limit the gateways have, a warm-up request that they take must pass here."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """Reaches a replica by the address that its loader knows: TF Serving's gRPC, TorchServe's management gRPC."""

    torchserve_grpc_port: int
    torchserve_rest_port: int

    def connect(self, server: Server, address: str) -> AbstractAsyncContextManager[Backend]:
        """A backend on the replica at `address` (ip:port), with connections of its own, closed on leaving.

        Implements `controller.warmup.Connect`. Nothing is called before the first request.
        """
        return _tf_serving(address) if server is Server.TF_SERVING else self._torchserve(address)

    @asynccontextmanager
    async def _torchserve(self, address: str) -> AsyncIterator[Backend]:
        host = address.rpartition(":")[0]
        async with (
            open_channel(f"{host}:{self.torchserve_grpc_port}", MAX_BYTES) as channel,
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as http,
        ):
            yield TorchServe(channel, http, f"http://{host}:{self.torchserve_rest_port}", MAX_BYTES)


@asynccontextmanager
async def _tf_serving(address: str) -> AsyncIterator[Backend]:
    async with open_channel(address, MAX_BYTES) as channel:
        yield TFServing(channel, MAX_BYTES)
