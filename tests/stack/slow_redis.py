"""A Redis that is far away: a proxy on loopback whose answers take so much longer."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class SlowRedis:
    """Where it listens, and by how many seconds each answer is late."""

    delay: float
    port: int = 0
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)


@contextmanager
def slow_redis(port: int, delay: float) -> Iterator[SlowRedis]:
    """In front of the Redis at `port`, until the context is left."""
    slow, ready, loop = SlowRedis(delay), threading.Event(), asyncio.new_event_loop()
    over = asyncio.Event()

    async def later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, delayed: bool) -> None:
        """Passes on all that comes; what is delayed, in its order."""
        try:
            while data := await reader.read(1 << 16):
                if delayed:
                    loop.call_later(slow.delay, writer.write, data)
                else:
                    writer.write(data)
        except OSError:
            pass
        finally:
            loop.call_later(slow.delay, writer.close)

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        for task in (
            asyncio.create_task(later(reader, back, delayed=False)),
            asyncio.create_task(later(there, writer, delayed=True)),
        ):
            slow.tasks.add(task)
            task.add_done_callback(slow.tasks.discard)

    async def serve() -> None:
        server = await asyncio.start_server(take, "127.0.0.1", 0)
        slow.port = server.sockets[0].getsockname()[1]
        ready.set()
        await over.wait()
        server.close()
        for task in list(slow.tasks):
            task.cancel()
        await asyncio.gather(*slow.tasks, return_exceptions=True)
        await asyncio.sleep(2 * slow.delay)  # what was still to be written or closed

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="slow-redis", daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield slow
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        loop.close()
