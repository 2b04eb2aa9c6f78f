"""Another gateway beside that of a running stack: the same Redis and the same model servers, a memory of its own.

Clients call it at its own port, past the edge.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from door import Door, eventually

from portico.local.addresses import free_ports
from portico.local.parts import Surroundings, gateway
from portico.local.process import PartProcess
from portico.local.stack import NOT_FOR_PARTS, Stack

PATIENT = {"PORTICO_REDIS_TIMEOUT": "10"}
"""A gateway that waits for Redis however busy the machine is, for tests of what it is told and not of how fast."""


@dataclass(frozen=True)
class SecondGateway:
    """A gateway of a test's own."""

    process: PartProcess
    door: Door
    metrics: Door

    def kill(self) -> None:
        """As a machine that fails: there is no goodbye."""
        pid = self.process.pid
        assert pid is not None
        os.killpg(pid, signal.SIGKILL)


@contextmanager
def second_gateway(stack: Stack, folder: Path, **settings: str) -> Iterator[SecondGateway]:
    """Started, with the routes of `stack`; `settings` are variables of its environment. Stopped in the end."""
    folder.mkdir(parents=True, exist_ok=True)
    port, metrics = free_ports(2)
    addresses = replace(stack.addresses, gateway=port, gateway_metrics=metrics)
    part = gateway(Surroundings(addresses, stack.models, folder))
    part = replace(part, environment={**part.environment, **settings})
    environment = {name: value for name, value in os.environ.items() if name not in NOT_FOR_PARTS}
    environment["no_proxy"] = ",".join(filter(None, (environment.get("no_proxy"), "127.0.0.1,localhost")))
    process = PartProcess(part, folder / "gateway.log", environment)
    process.start()
    try:
        process.wait_until_ready()
        door = Door(port)
        eventually(lambda: door.get("/v2/models/iris/ready").status == 200, 30, f"it has routes\n{process.tail()}")
        yield SecondGateway(process, door, Door(metrics))
    finally:
        process.stop()
