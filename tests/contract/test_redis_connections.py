"""Each way to Redis, on real ones: what the routes, the cache and the operators need works by all of them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from redis.asyncio import Redis

from portico.acknowledgements import GOODBYE, Acknowledgements
from portico.backplane import Backplane, BackplaneUnavailable
from portico.cache_entries import Amount, CacheEntries
from portico.cache_key import CacheKey
from portico.caching.redis import RedisCache
from portico.freshness import Entry
from portico.inference import InferenceResponse, Tensor
from portico.local.addresses import free_ports, is_free
from portico.ports import Found
from portico.purges import Purges
from portico.redis_address import RedisAccess
from portico.redis_connection import TIMEOUT, open_redis
from portico.routing import LiveRoutes, RouteTable
from redis_server import RedisSentinel, RedisServer, behind_tls, certificates

PASSWORD = "pässword"  # noqa: S105 - of a Redis that ends with its test
SLOTS = 16384
TABLE = RouteTable(revision=7)
SERVER, SENTINEL = "redis://127.0.0.1:{}/1", "redis+sentinel://127.0.0.1:{}/cache/1"


class Redises:
    """Starts Redis in many ways; what is started ends with the test."""

    def __init__(self, folder: Path, opened: AsyncExitStack) -> None:
        self.folder = folder
        self.servers: list[RedisServer] = []
        self._opened = opened

    def server(self, *options: str, port: int | None = None) -> RedisServer:
        """A server in a folder of its own."""
        folder = self.folder / str(len(self.servers))
        folder.mkdir()
        server = RedisServer(folder, *options, port=port)
        server.start()
        self.servers.append(server)
        self._opened.callback(server.stop)
        return server

    def sentinel(self, port: int, *settings: str) -> int:
        """The port of a Sentinel that watches the server at a port."""
        sentinel = RedisSentinel(self.folder, port, *settings)
        sentinel.start()
        self._opened.callback(sentinel.stop)
        return sentinel.port

    async def cluster(self, nodes: int, *options: str, password: str | None = None) -> int:
        """The port of one of the nodes, among which the slots are divided."""
        started = [self.server("--cluster-enabled", "yes", *options, port=cluster_port()) for _ in range(nodes)]
        share = SLOTS // nodes
        for index, one in enumerate(started):
            async with Redis.from_url(one.url, protocol=2, password=password) as client:
                await client.execute_command("CLUSTER ADDSLOTS", *range(index * share, (index + 1) * share))
                await client.execute_command("CLUSTER MEET", "127.0.0.1", started[0].port)
        for one in started:
            async with Redis.from_url(one.url, protocol=2, password=password) as client:
                while (await client.execute_command("CLUSTER INFO"))["cluster_state"] != "ok":
                    await asyncio.sleep(0.05)
        return started[-1].port

    async def tls(self, port: int, at: int | None = None) -> int:
        """The port of a Redis with TLS in front of the one at `port`; its certificate is vouched for by ca.pem."""
        at = at or free_ports(1)[0]
        if not Path(self.ca_file).exists():
            certificates(self.folder)
        await self._opened.enter_async_context(behind_tls(port, self.folder / "server.pem", at))
        return at

    def password_file(self, text: str = PASSWORD + "\n") -> str:
        """The file with the password."""
        path = self.folder / "password"
        path.write_text(text)
        return str(path)

    @property
    def ca_file(self) -> str:
        """The file with the authority's certificate."""
        return str(self.folder / "ca.pem")


def cluster_port() -> int:
    """A free port for a node. Nodes talk to one another 10,000 ports higher up, which is no port that the system hands
    out to somebody who connects, either.
    """
    while True:
        port = free_ports(1)[0] - 10_000
        if is_free(port):
            return port


@pytest.fixture
async def redises() -> AsyncIterator[Redises]:
    """In a folder whose name is short enough for a socket."""
    with TemporaryDirectory(prefix="redis-") as folder:
        async with AsyncExitStack() as opened:
            yield Redises(Path(folder), opened)


async def server(redises: Redises) -> RedisAccess:
    return RedisAccess(SERVER.format(redises.server().port))


async def unix_socket(redises: Redises) -> RedisAccess:
    path = redises.folder / "redis.sock"
    redises.server("--unixsocket", str(path))
    return RedisAccess(f"unix://{path}?db=1")


async def password(redises: Redises) -> RedisAccess:
    return RedisAccess(SERVER.format(redises.server("--requirepass", PASSWORD).port), redises.password_file())


async def user(redises: Redises) -> RedisAccess:
    one = redises.server()
    async with Redis.from_url(one.url) as client:
        await client.execute_command("ACL SETUSER", "portico", "on", f">{PASSWORD}", "~*", "+@all")
        await client.execute_command("ACL SETUSER", "default", "off")
    return RedisAccess(f"redis://portico@127.0.0.1:{one.port}", redises.password_file())


async def tls(redises: Redises) -> RedisAccess:
    port = await redises.tls(redises.server("--requirepass", PASSWORD).port)
    return RedisAccess(f"rediss://127.0.0.1:{port}/1", redises.password_file(), redises.ca_file)


async def cluster(redises: Redises) -> RedisAccess:
    nobody = free_ports(1)[0]
    return RedisAccess(f"redis+cluster://127.0.0.1:{nobody},127.0.0.1:{await redises.cluster(2)}")


async def cluster_with_a_password(redises: Redises) -> RedisAccess:
    port = await redises.cluster(1, "--requirepass", PASSWORD, password=PASSWORD)
    return RedisAccess(f"redis+cluster://127.0.0.1:{port}", redises.password_file())


async def cluster_behind_tls(redises: Redises) -> RedisAccess:
    at = free_ports(1)[0]
    await redises.tls(await redises.cluster(1, "--cluster-announce-port", str(at)), at)
    return RedisAccess(f"rediss+cluster://127.0.0.1:{at}", ca_file=redises.ca_file)


async def sentinel(redises: Redises) -> RedisAccess:
    return RedisAccess(SENTINEL.format(redises.sentinel(redises.server().port)))


async def sentinel_of_a_redis_with_a_password(redises: Redises) -> RedisAccess:
    port = redises.sentinel(redises.server("--requirepass", PASSWORD).port)
    return RedisAccess(SENTINEL.format(port), redises.password_file())


async def sentinel_with_the_same_password(redises: Redises) -> RedisAccess:
    port = redises.sentinel(redises.server("--requirepass", PASSWORD).port, f"requirepass {PASSWORD}")
    return RedisAccess(SENTINEL.format(port), redises.password_file())


async def sentinel_behind_tls(redises: Redises) -> RedisAccess:
    master = await redises.tls(redises.server().port)
    port = redises.sentinel(master)
    at = free_ports(1)[0]
    await redises.tls(port, at)
    return RedisAccess(f"rediss+sentinel://127.0.0.1:{at}/cache/1", ca_file=redises.ca_file)


WAYS = [
    server,
    unix_socket,
    password,
    user,
    tls,
    cluster,
    cluster_with_a_password,
    cluster_behind_tls,
    sentinel,
    sentinel_of_a_redis_with_a_password,
    sentinel_with_the_same_password,
    sentinel_behind_tls,
]


@pytest.fixture(params=WAYS, ids=[way.__name__ for way in WAYS])
async def access(request: pytest.FixtureRequest, redises: Redises) -> RedisAccess:
    found: RedisAccess = await request.param(redises)
    return found


async def until(condition: Callable[[], bool]) -> None:
    """Waits for `condition`; the test's own time limit ends a wait in vain."""
    while not condition():
        await asyncio.sleep(0.01)


async def test_all_that_is_needed_works(access: RedisAccess) -> None:
    """The routes and who has them, entries and scripts on them, purges and their announcement."""
    async with open_redis(access) as client:
        redis: Any = client
        tables: list[RouteTable] = []
        purged: list[str] = []
        acknowledgements, purges = Acknowledgements(client), Purges(client)
        async with Backplane(client).following(tables.append), purges.following(purged.append):
            await Backplane(client).publish(TABLE)
            await until(lambda: tables == [TABLE])
            async with acknowledgements.telling(LiveRoutes(TABLE)):
                while [one.revision for one in (await acknowledgements.all()).values()] != [7]:
                    await asyncio.sleep(0.01)
            assert list((await acknowledgements.all()).values()) == [GOODBYE]
            for number in range(20):
                await redis.set(f"portico:cache:iris:{{{number:032x}}}", b"\x00\xff", ex=60)
            keys = ("portico:cache:digits:{0}", "portico:lease:{0}")
            script = "redis.call('SET', KEYS[1], ARGV[1], 'EX', 60) return {redis.call('GET', KEYS[1]), KEYS[2]}"
            assert await redis.eval(script, 2, *keys, b"\xff") == [b"\xff", b"portico:lease:{0}"]
            entries = CacheEntries(client)
            assert (await entries.stats()).models == {"digits": Amount(1, 1), "iris": Amount(20, 40)}
            assert await entries.purge("iris") == 20
            await purges.announce("iris")
            await until(lambda: purged == ["iris"])
            assert (await entries.purge(None), (await entries.stats()).models) == (1, {})


async def test_the_cache_works(access: RedisAccess) -> None:
    """One gateway asks the model, the other gets its answer; what is purged is asked for anew."""
    key = CacheKey("iris", bytes(32))
    entry = Entry.of(key.digest, InferenceResponse((Tensor("y", "INT32", (1,), b"\x01\0\0\0"),)), 600)
    async with AsyncExitStack() as opened:
        clients = [await opened.enter_async_context(open_redis(access)) for _ in range(2)]
        one, other = (RedisCache(client, TIMEOUT) for client in clients)
        lease = await one.get_or_lease(key)
        assert not isinstance(lease, Found)
        waiting = asyncio.create_task(other.get_or_lease(key))
        lease.fulfil(entry)
        found = await waiting
        assert isinstance(found, Found)
        assert found.entry == entry
        assert await one.get(key) == entry
        entries = CacheEntries(clients[0])
        assert list((await entries.stats()).models) == ["iris"]
        assert await entries.purge("iris") == 1
        assert await other.get(key) is None
        await one.aclose()
        await other.aclose()


async def test_who_needs_one_more_connection_waits(access: RedisAccess) -> None:
    """No call fails because there are many."""
    async with open_redis(access, max_connections=2) as client:
        redis: Any = client
        assert await asyncio.gather(*(redis.set(f"key{number}", b"1") for number in range(200))) == [True] * 200


async def test_a_cluster_that_is_gone_is_an_error_like_others(redises: Redises) -> None:
    """Also redis-py's own errors for clusters; and when it is back, it is used again."""
    access = await cluster(redises)
    async with open_redis(access) as client:
        backplane = Backplane(client)
        await backplane.publish(TABLE)
        for one in redises.servers:
            one.stop()
        for _ in range(3):
            with pytest.raises(BackplaneUnavailable):
                await backplane.newest()
        for one in redises.servers:
            one.start()
        while True:
            try:
                await backplane.publish(TABLE)
                break
            except BackplaneUnavailable:
                await asyncio.sleep(0.1)
        assert (await backplane.newest())[1] == TABLE


async def test_a_new_master_is_followed(redises: Redises) -> None:
    """The Sentinels name another server when the master is gone: calls go there, whoever asked and however many."""
    old, new = redises.server(), redises.server()
    port, nobody = redises.sentinel(old.port), free_ports(1)[0]
    access = RedisAccess(f"redis+sentinel://127.0.0.1:{nobody},127.0.0.1:{port}/cache")
    async with (
        open_redis(access) as client,
        Redis(port=port, protocol=2) as told,
        Redis.from_url(new.url, protocol=2) as there,
    ):
        tables: list[RouteTable] = []
        backplane = Backplane(client)
        async with backplane.following(tables.append):
            await backplane.publish(TABLE)
            await until(lambda: tables == [TABLE])
            old.stop()
            await told.execute_command("SENTINEL REMOVE", "cache")
            with pytest.raises(BackplaneUnavailable, match="cache"):
                await backplane.publish(TABLE)
            await told.execute_command("SENTINEL MONITOR", "cache", "127.0.0.1", new.port, 1)
            await backplane.publish(RouteTable(revision=8))
            await until(lambda: tables[-1].revision == 8)
            assert await there.exists("portico:routes")


async def test_a_wrong_password_is_said_and_may_be_mended(redises: Redises, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever starts goes on trying, and the log says that it is the password; the file may be written anew."""
    one = redises.server("--requirepass", PASSWORD)
    access = RedisAccess(one.url, redises.password_file("wrong"))
    async with open_redis(access) as client:
        tables: list[RouteTable] = []
        async with Backplane(client).following(tables.append):
            await until(lambda: "Redis cannot be reached: invalid username-password pair" in caplog.text)
            with pytest.raises(BackplaneUnavailable, match="invalid username-password pair"):
                await Backplane(client).publish(TABLE)
            Path(access.password_file).unlink()
            with pytest.raises(BackplaneUnavailable, match="no password can be read from"):
                await Backplane(client).publish(TABLE)
            redises.password_file()
            await Backplane(client).publish(TABLE)
            await until(lambda: tables == [TABLE])


async def test_a_password_that_is_missing_is_said(redises: Redises) -> None:
    """Redis asks for one, and the error says so."""
    async with open_redis(RedisAccess(redises.server("--requirepass", PASSWORD).url)) as client:
        with pytest.raises(BackplaneUnavailable, match="Authentication required"):
            await Backplane(client).publish(TABLE)


async def test_a_server_that_nobody_vouches_for_gets_no_password(redises: Redises) -> None:
    """A certificate of an unknown authority, or for another name, ends the connection before a word is said."""
    access = await tls(redises)
    stranger = RedisAccess(access.url, access.password_file)
    misnamed = RedisAccess(access.url.replace("127.0.0.1", "localhost"), access.password_file, access.ca_file)
    for one in (stranger, misnamed):
        async with open_redis(one) as client:
            with pytest.raises(BackplaneUnavailable, match="certificate"):
                await Backplane(client).publish(TABLE)
