"""Opens a client of any Redis: one server, a cluster, or the one that Sentinels name. Used for the routes, the response
cache and the operators alike; it does not know what is kept there.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, TypeAlias

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError, RedisClusterException, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from portico.redis_address import Kind, Place, RedisAccess, parse, read_password, without

TIMEOUT = 3.0
"""Seconds after which Redis counts as gone, for whoever is in no hurry; longer than a read may block."""
CONNECTIONS = 64
"""Connections of one client, to each node of a cluster; who needs one more waits."""

Client: TypeAlias = Redis | RedisCluster
"""They take the same commands; all keys of one command have to lie in one slot of a cluster."""


def cancelled() -> bool:
    """Whether this task has been cancelled; on Python 3.11, redis-py can swallow that while it sends (`wait_for`)."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@asynccontextmanager
async def open_redis(
    access: RedisAccess, timeout: float = TIMEOUT, max_connections: int = CONNECTIONS
) -> AsyncIterator[Client]:
    """A client of the Redis at `access`, which need not be there yet. Answers come as bytes.

    Connecting, an answer, and waiting for a connection may take `timeout` seconds each. What goes wrong is a RedisError
    or an OSError, whatever kind of Redis it is. Raises ValueError for a URL that cannot be read.
    """
    place = parse(access.url)
    options = place.options | {"socket_timeout": timeout, "socket_connect_timeout": timeout, "protocol": 2}
    if access.ca_file and place.tls:
        options["ssl_ca_certs"] = access.ca_file
    open_place = {Kind.SERVER: _server, Kind.CLUSTER: _cluster, Kind.SENTINEL: _sentinel}[place.kind]
    async with open_place(place, options, access.password_file, timeout, max_connections) as client:
        yield client


@asynccontextmanager
async def _server(
    place: Place, options: dict[str, Any], password_file: str, timeout: float, connections: int
) -> AsyncIterator[Client]:
    options = _with_password(options, password_file)
    async with aclosing(Redis.from_pool(BlockingConnectionPool(connections, timeout, **options))) as client:
        yield client


@asynccontextmanager
async def _cluster(
    place: Place, options: dict[str, Any], password_file: str, timeout: float, connections: int
) -> AsyncIterator[Client]:
    nodes = [ClusterNode(host, port) for host, port in place.hosts]
    options = _with_password(options, password_file)
    async with aclosing(_Cluster(connections, startup_nodes=nodes, ssl=place.tls, **options)) as client:
        yield client


@asynccontextmanager
async def _sentinel(
    place: Place, options: dict[str, Any], password_file: str, timeout: float, connections: int
) -> AsyncIterator[Client]:
    options["ssl"] = place.tls
    own = without(options, "db", "username") | {"retry": Retry(NoBackoff(), 0)}
    if password_file or "password" in own:
        # One password for all. A Sentinel that has none takes any for its user `default`, but none without a user.
        own["username"] = "default"
    sentinels = _Sentinels(place.hosts, sentinel_kwargs=_with_password(own, password_file))
    options = _with_password(options, password_file)
    options |= {"max_connections": connections, "timeout": timeout}
    pool = _SentinelPool(place.service, sentinels, **options)  # type: ignore[no-untyped-call]
    client = Redis.from_pool(pool)
    try:
        yield client
    finally:
        await client.aclose()
        await sentinels.aclose()


def _with_password(options: dict[str, Any], password_file: str) -> dict[str, Any]:
    if not password_file:
        return options
    provider = _PasswordFile(password_file, options.get("username"))
    return without(options, "username", "password") | {"credential_provider": provider}


class _PasswordFile(CredentialProvider):
    """redis-py asks it for each connection, so a file that is renewed takes effect.

    What it raises has to be one of redis-py's errors: those alone close a connection that could not log in.
    """

    def __init__(self, path: str, username: str | None) -> None:
        self._path = path
        self._username = username

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        try:
            password = read_password(self._path)
        except ValueError as error:
            raise AuthenticationError(str(error)) from error
        return (self._username, password) if self._username else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()


class _Look:
    """One attempt at a time to find out where Redis is. It goes on although those who wait for it have given up: a
    cache's calls are cancelled too soon for it to come to an end within one of them.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None

    async def join(self, attempt: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """What the attempt under way gives, or else a new one."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(attempt(), name="look for Redis")
            # Nobody may be left to hear of an error.
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Leaves none under way."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError, RedisError, OSError):
                await self._task


class _Sentinels(Sentinel):
    """Sentinels, some of which may be down."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
        self._look = _Look()

    async def discover_master(self, service_name: str) -> Any:
        try:
            return await self._look.join(lambda: Sentinel.discover_master(self, service_name))
        except MasterNotFoundError as error:
            # redis-py's text describes its own objects.
            why = "; ".join(re.findall(r"Error\([\"'](.*?)[\"']\)", str(error)))
            text = f"no Sentinel names a master of {service_name!r}"
            raise MasterNotFoundError(f"{text} ({why})" if why else text) from error

    async def aclose(self) -> None:
        await self._look.stop()
        await super().aclose()


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Connections to the service's master of the time; who needs one more waits."""


class _Cluster(RedisCluster):
    """A cluster's client that keeps what `open_redis` promises: redis-py's own fails at once when all connections are
    in use, and has errors that are no RedisError.
    """

    def __init__(self, connections: int, **options: Any) -> None:
        # Twice as many, since connections that are being closed count.
        super().__init__(max_connections=2 * connections, retry=Retry(NoBackoff(), 1), **options)
        self._unused = asyncio.Semaphore(connections)
        self._look = _Look()

    async def initialize(self, *args: Any, **options: Any) -> RedisCluster:
        try:
            return await super().initialize(*args, **options)
        except RedisClusterException as error:
            raise RedisConnectionError(str(error)) from error

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        if self._initialize:
            await self._look.join(self.initialize)
        try:
            async with self._unused:
                return await super().execute_command(*args, **kwargs)
        except RedisClusterException as error:
            raise RedisConnectionError(str(error)) from error

    async def aclose(self) -> None:
        await self._look.stop()
        await super().aclose()
        # After a failure the base class leaves connections open.
        await self.nodes_manager.aclose()
        await self.nodes_manager.aclose("startup_nodes")
