"""Real Redis servers for tests that want to stop them and start them again: alone, as a cluster, watched by Sentinels,
behind TLS.
"""

import asyncio
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from model_servers import free_port
from portico.local import layout

START_SECONDS = 30.0


class RedisServer:
    """A Redis on loopback that can be stopped and started; it forgets everything then.

    `options` are more of its command line's; a port is picked unless one is given.
    """

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._options = options

    def start(self) -> None:
        """Returns when it answers."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        command = [layout.redis_server(), *options, *self._options]
        self._process = started(command, self.port)

    def stop(self) -> None:
        """Kills it."""
        self._process.kill()
        self._process.wait(START_SECONDS)


class RedisSentinel:
    """A Sentinel that takes the first `port` for the master of the service `cache` until it is told another."""

    def __init__(self, folder: Path, port: int, *settings: str) -> None:
        self.port = free_port()
        self._file = folder / f"sentinel-{self.port}.conf"
        own = ["bind 127.0.0.1", f"port {self.port}", f"dir {folder}"]
        watched = [f"sentinel monitor cache 127.0.0.1 {port} 1", "sentinel down-after-milliseconds cache 60000"]
        self._file.write_text("\n".join([*own, *settings, *watched]) + "\n")

    def start(self) -> None:
        """Returns when it answers."""
        command = [layout.redis_server(), str(self._file), "--sentinel"]
        self._process = started(command, self.port)

    def stop(self) -> None:
        """Kills it."""
        self._process.kill()
        self._process.wait(START_SECONDS)


def started(command: list[str], port: int) -> "subprocess.Popen[bytes]":
    """The process, once it listens; none is left behind if it does not."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.02)
    process.kill()
    process.wait(START_SECONDS)
    raise AssertionError("Redis did not start")


def certificates(folder: Path) -> None:
    """A new authority's certificate, ca.pem, and that of a server at 127.0.0.1 with its key, server.pem."""
    ca, ca_key, key, request, server = (folder / f"{name}.pem" for name in ("ca", "ca-key", "key", "request", "server"))
    usage = "keyUsage=critical,keyCertSign"
    make = ["openssl", "req", "-newkey", "rsa:2048", "-nodes"]
    openssl([*make, "-x509", "-subj", "/CN=test authority", "-addext", usage, "-keyout", str(ca_key), "-out", str(ca)])
    openssl([*make, "-subj", "/CN=redis", "-keyout", str(key), "-out", str(request)])
    names = folder / "names.cnf"
    names.write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
    sign = ["openssl", "x509", "-req", "-in", str(request), "-CA", str(ca), "-CAkey", str(ca_key), "-set_serial", "2"]
    openssl([*sign, "-extfile", str(names), "-out", str(server)])
    server.write_text(server.read_text() + key.read_text())


def openssl(command: list[str]) -> None:
    """Runs it; what it says is in the error of a failure."""
    subprocess.run(command, check=True, capture_output=True, timeout=START_SECONDS)


@asynccontextmanager
async def behind_tls(port: int, certificate: Path, at: int) -> AsyncIterator[None]:
    """TLS at one port in front of the Redis at another: not every redis-server is built with it."""
    pumps: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        pumps.update(asyncio.create_task(pump(*pair)) for pair in ((reader, back), (there, writer)))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = await asyncio.start_server(take, "127.0.0.1", at, ssl=context)
    try:
        yield
    finally:
        server.close()
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        await server.wait_closed()
