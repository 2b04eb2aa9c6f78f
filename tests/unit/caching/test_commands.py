"""Commands over one connection, against a server on a socket that does what a test wants."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import hiredis
import pytest
from redis.asyncio import BlockingConnectionPool, RedisCluster
from redis.exceptions import ConnectionError as RedisGone
from redis.exceptions import InvalidResponse, ResponseError
from redis.exceptions import TimeoutError as RedisTimeout

from portico.caching import line
from portico.caching.commands import MOST_AT_A_TIME, Commands
from portico.redis_address import RedisAccess
from portico.redis_connection import open_redis

Answer = Callable[[list[bytes], asyncio.StreamWriter], Awaitable[None]]


async def echo(command: list[bytes], writer: asyncio.StreamWriter) -> None:
    writer.write(b"$%d\r\n%s\r\n" % (len(command[-1]), command[-1]))


class Server:
    """Answers what redis-py says to log in; all else goes to `answer`."""

    def __init__(self) -> None:
        self.answer: Answer = echo
        self.connections = 0
        self.reads: list[int] = []
        self.writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.add(writer)
        commands = hiredis.Reader()
        try:
            while data := await reader.read(1 << 16):
                commands.feed(data)
                count = 0
                while (command := commands.gets()) is not False:
                    count += 1
                    if command[0] == b"CLIENT":
                        writer.write(b"+OK\r\n")
                    else:
                        await self.answer(command, writer)
                self.reads.append(count)
        except ConnectionError:
            pass
        finally:
            writer.close()
            self.writers.discard(writer)


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[RedisAccess]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    try:
        yield RedisAccess(f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}/0")
    finally:
        listening.close()
        for writer in list(server.writers):
            writer.transport.abort()


@asynccontextmanager
async def talking(server: Server, timeout: float = 5.0, silence: float = 5.0) -> AsyncIterator[Commands]:
    async with serving(server) as access, open_redis(access, 1.0) as redis:
        commands = Commands(redis, timeout, silence)
        try:
            yield commands
        finally:
            await commands.aclose()


async def test_each_gets_its_answer() -> None:
    server = Server()
    async with talking(server) as commands:
        assert await commands.ask("ECHO", "first") == b"first"
        asked = [str(number) for number in range(500)]
        assert await asyncio.gather(*(commands.ask("ECHO", each) for each in asked)) == [
            each.encode() for each in asked
        ]
    assert server.connections == 1
    assert max(server.reads) > 50, "what is asked at once goes out at once"


async def test_what_redis_refuses_is_an_error_of_one() -> None:
    server = Server()

    async def refuse(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        if command[-1] == b"no":
            writer.write(b"-ERR not this one\r\n")
        else:
            await echo(command, writer)

    server.answer = refuse
    async with talking(server) as commands:
        asked = [commands.ask("ECHO", each) for each in ("a", "no", "b")]
        first, second, third = await asyncio.gather(*asked, return_exceptions=True)
    assert (first, third) == (b"a", b"b")
    assert isinstance(second, ResponseError)
    assert "not this one" in str(second)


async def test_a_connection_that_was_closed_meanwhile() -> None:
    server = Server()
    async with talking(server) as commands:
        assert await commands.ask("ECHO", "a") == b"a"
        for writer in list(server.writers):
            writer.close()
        await asyncio.sleep(0.05)
        assert await commands.ask("ECHO", "b") == b"b"
    assert server.connections == 2


async def test_what_was_under_way_is_asked_again() -> None:
    server = Server()
    async with talking(server) as commands:
        assert await commands.ask("ECHO", "a") == b"a"

        async def leave(command: list[bytes], writer: asyncio.StreamWriter) -> None:
            server.answer = echo
            writer.transport.abort()
            raise ConnectionError

        server.answer = leave
        assert await asyncio.gather(commands.ask("ECHO", "b"), commands.ask("ECHO", "c")) == [b"b", b"c"]
    assert server.connections == 2


async def test_a_server_that_always_hangs_up() -> None:
    server = Server()

    async def leave(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()
        raise ConnectionError

    server.answer = leave
    async with talking(server) as commands:
        with pytest.raises(RedisGone):
            await commands.ask("ECHO", "a")
        server.answer = echo
        assert await commands.ask("ECHO", "b") == b"b"


async def test_nobody_is_there() -> None:
    async with serving(Server()) as access:
        pass
    async with open_redis(access, 1.0) as redis:
        commands = Commands(redis, 5.0, 5.0)
        for _ in range(2):
            with pytest.raises((RedisGone, OSError)):
                await commands.ask("ECHO", "a")
        await commands.aclose()


async def hang(command: list[bytes], writer: asyncio.StreamWriter) -> None:
    pass


async def test_a_silent_server_is_given_up() -> None:
    server = Server()
    server.answer = hang
    async with talking(server, timeout=5.0, silence=0.1) as commands:
        with pytest.raises(TimeoutError):
            await commands.ask("ECHO", "a")
        server.answer = echo
        assert await commands.ask("ECHO", "b") == b"b"
    assert server.connections == 2


async def test_silence_counts_from_the_last_word() -> None:
    server = Server()

    async def slowly(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.1)
        await echo(command, writer)

    server.answer = slowly
    async with talking(server, timeout=5.0, silence=0.3) as commands:
        asked = [str(number) for number in range(8)]
        assert await asyncio.gather(*(commands.ask("ECHO", each) for each in asked)) == [
            each.encode() for each in asked
        ]
    assert server.connections == 1


async def test_an_answer_that_comes_too_late_is_nobody_else_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "HELD_UP", 60)
    server = Server()
    late = asyncio.Event()

    async def first_waits(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        if command[-1] == b"a":
            await late.wait()
        await echo(command, writer)

    server.answer = first_waits
    async with talking(server, timeout=0.1) as commands:
        with pytest.raises(TimeoutError):
            await commands.ask("ECHO", "a")
        second = asyncio.create_task(commands.ask("ECHO", "b"))
        await asyncio.sleep(0)
        late.set()
        assert await second == b"b"
    assert server.connections == 1


async def test_who_gave_up_before_it_was_sent() -> None:
    server = Server()
    async with talking(server) as commands:
        gone = asyncio.create_task(commands.ask("ECHO", "a"))
        await asyncio.sleep(0)
        gone.cancel()
        assert await asyncio.wait_for(commands.ask("ECHO", "b"), 2) == b"b"
        assert gone.cancelled()


async def test_who_gave_up_is_not_in_the_way_of_the_next() -> None:
    server = Server()
    async with talking(server) as commands:
        gone = asyncio.create_task(commands.ask("ECHO", "a"))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0.05)
        assert await asyncio.wait_for(commands.ask("ECHO", "b"), 2) == b"b"


async def test_what_is_no_redis() -> None:
    server = Server()

    async def gibberish(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        writer.write(b"?what\r\n")

    server.answer = gibberish
    async with talking(server) as commands:
        with pytest.raises(InvalidResponse):
            await commands.ask("ECHO", "a")
        server.answer = echo
        assert await commands.ask("ECHO", "b") == b"b"


async def test_a_large_answer_holds_up_no_others() -> None:
    server = Server()

    async def trickle(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        if command[-1] != b"large":
            return await echo(command, writer)
        writer.write(b"$8\r\n")
        for _ in range(8):
            writer.write(b"x")
            await asyncio.sleep(0.05)
        writer.write(b"\r\n")

    server.answer = trickle
    async with talking(server, timeout=5.0) as commands:
        large = asyncio.create_task(commands.ask("ECHO", "large"))
        await asyncio.sleep(0.05)
        for _ in range(3):
            assert await asyncio.wait_for(commands.ask("ECHO", "small"), 0.2) == b"small"
        assert not large.done()
        assert await large == b"x" * 8


async def test_what_cannot_be_sent() -> None:
    """It is an error of who wants it, and nobody gets another's answer."""
    server = Server()
    async with talking(server) as commands:
        asked = [commands.ask("ECHO", each) for each in ("a", object(), "b", "c")]
        answers = await asyncio.gather(*asked, return_exceptions=True)  # type: ignore[arg-type]
        assert [answers[0], *answers[2:]] == [b"a", b"b", b"c"]
        assert isinstance(answers[1], TypeError)


async def test_what_nobody_asked_for() -> None:
    """Answers after it would be other commands', so that the connection is given up."""
    server = Server()

    async def twice(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        await echo(command, writer)
        await echo(command, writer)

    server.answer = twice
    async with talking(server) as commands:
        assert await commands.ask("ECHO", "a") == b"a"
        server.answer = echo
        await asyncio.sleep(0.05)
        assert await commands.ask("ECHO", "b") == b"b"
    assert server.connections == 2


async def test_a_master_that_was_demoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentinels are asked again who the master is, on the next connection."""
    monkeypatch.setattr(line, "SentinelConnectionPool", BlockingConnectionPool)
    server = Server()

    async def refuse(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        writer.write(b"-READONLY You can't write against a read only replica.\r\n")

    async with talking(server) as commands:
        assert await commands.ask("ECHO", "a") == b"a"
        server.answer = refuse
        with pytest.raises(RedisGone):
            await commands.ask("SET", "b")
        server.answer = echo
        assert await commands.ask("ECHO", "c") == b"c"
    assert server.connections == 2


class StalledCluster(RedisCluster):
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked, self.goes_on = 0, asyncio.Event()

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        self.asked += 1
        await self.goes_on.wait()

    def __del__(self, *_: Any) -> None:
        """There are no connections."""


async def test_a_cluster_is_not_asked_what_nobody_waits_for() -> None:
    cluster = StalledCluster()
    commands = Commands(cluster, timeout=0.05, silence=1.0)
    asked = await asyncio.gather(*(commands.ask("GET", "a") for _ in range(500)), return_exceptions=True)
    assert {type(each) for each in asked} == {TimeoutError}
    cluster.goes_on.set()
    await asyncio.sleep(0.05)
    assert cluster.asked == MOST_AT_A_TIME
    await commands.aclose()


async def test_too_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "MOST_WAITING", 3)
    monkeypatch.setattr(line, "HELD_UP", 60)
    server = Server()
    server.answer = hang
    async with talking(server) as commands:
        waiting = [asyncio.create_task(commands.ask("ECHO", "a")) for _ in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(RedisTimeout, match="wait"):
            await commands.ask("ECHO", "b")
        await commands.aclose()
        results: list[Any] = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)


async def test_closed_is_closed() -> None:
    server = Server()
    async with talking(server) as commands:
        await commands.ask("ECHO", "a")
        await commands.aclose()
        with pytest.raises(RedisTimeout):
            await commands.ask("ECHO", "b")
        await asyncio.sleep(0.05)
        assert not server.writers
