"""A real Redis for tests that want to stop it and start it again."""

import socket
import subprocess
import time
from pathlib import Path

from model_servers import free_port
from portico.local import layout

START_SECONDS = 30.0


class RedisServer:
    """A Redis on loopback that can be stopped and started; it forgets everything then."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder

    def start(self) -> None:
        """Returns when it answers."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        self._process = subprocess.Popen([layout.redis_server(), *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("Redis did not start")

    def stop(self) -> None:
        """Kills it."""
        self._process.kill()
        self._process.wait(START_SECONDS)
