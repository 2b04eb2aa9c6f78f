"""The user's own docker-compose.yml, unchanged, in containers: what tests do to it, and ask of it.

Knows neither how an engine is had nor how images are built.
"""

import json
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine import Engine

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "portico-containers-test"
SERVICES = ("envoy", "gateway", "controller", "redis", "tf-serving", "torchserve")
UP_SECONDS = 240.0
DOOR = 8080


@dataclass
class Composed:
    """A stack which serves `models`; `password` is Redis', handed over as a file. `overlays` are files beside
    docker-compose.yml, `project` is what Compose knows the stack by, `settings` are variables of the files.
    """

    engine: Engine
    scratch: Path
    password: str
    port: int = field(default_factory=lambda: free_port(DOOR))
    overlays: tuple[str, ...] = ()
    project: str = PROJECT
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.models = self.scratch / "model-repository"
        shutil.copytree(ROOT / "model-repository", self.models)
        secret = self.scratch / "redis-password"
        secret.write_text(self.password + "\n")
        for path in (self.scratch, *self.scratch.rglob("*")):  # containers have users of their own
            path.chmod(0o755 if path.is_dir() else 0o644)
        # Settings in the environment of who runs the tests are for other stacks.
        known = re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
        others = {name: value for name, value in self.engine.environment.items() if name not in known}
        settings = {"MODELS": str(self.models), "PORT": str(self.port), "REDIS_PASSWORD_FILE": str(secret)}
        self.engine = replace(self.engine, environment={**others, **settings, **self.settings})

    def compose(self, *arguments: str, seconds: float = UP_SECONDS) -> str:
        """What `docker compose ...` prints."""
        where = ("--project-name", self.project, "--env-file", os.devnull, "--progress", "quiet")
        files = [word for name in ("docker-compose.yml", *self.overlays) for word in ("--file", str(ROOT / name))]
        return self.engine.docker("compose", *where, *files, *arguments, seconds=seconds)

    def up(self, **replicas: int) -> float:
        """Starts everything, or so many of a service, and waits until all is healthy; the seconds it took."""
        scale = [part for name, count in replicas.items() for part in ("--scale", f"{name.replace('_', '-')}={count}")]
        began = time.monotonic()
        self.compose("up", "--detach", "--wait", "--no-recreate", *scale)
        return time.monotonic() - began

    def down(self) -> None:
        """Removes all of it."""
        self.compose("down", "--volumes", "--timeout", "1")

    def containers(self, service: str = "") -> list[str]:
        """The ids of the containers, or of those of one service."""
        labels = {"project": self.project, **({"service": service} if service else {})}
        filters = [
            part for name, value in labels.items() for part in ("--filter", f"label=com.docker.compose.{name}={value}")
        ]
        return self.engine.docker("ps", "--all", "--quiet", "--no-trunc", *filters).split()

    def inspected(self, *containers: str) -> list[dict[str, Any]]:
        """What `docker inspect` knows of containers."""
        found: list[dict[str, Any]] = json.loads(self.engine.docker("inspect", *containers))
        return found

    def execute(self, container: str, *command: str, seconds: float = 30.0) -> str:
        """What a command in a container prints."""
        return self.engine.docker("exec", container, *command, seconds=seconds)

    def bash(self, container: str, script: str, *arguments: str) -> str:
        """What a script of bash, or of sh where there is none, prints in a container."""
        return self.execute(container, "sh", "-c", script, "sh", *arguments)

    def kill(self, container: str) -> None:
        """Ends a container's main process by SIGKILL, as a crash would; `docker kill` would keep it from restarting."""
        (found,) = self.inspected(container)
        kill = ("--entrypoint", "sh", found["Image"], "-c", f"kill -9 {found['State']['Pid']}")
        self.engine.docker("run", "--rm", "--pid", "host", "--user", "0", "--network", "none", *kill)

    def unhealthy(self) -> list[str]:
        """The containers that do not run or whose health check does not pass, and how they are."""
        states = {found["Name"].lstrip("/"): found["State"] for found in self.inspected(*self.containers())}
        return [
            f"{name}: {state['Status']}, {state.get('Health', {}).get('Status')}"
            for name, state in states.items()
            if state["Status"] != "running" or state["Health"]["Status"] != "healthy"
        ]

    def addresses(self, service: str) -> Mapping[str, list[str]]:
        """The addresses of a service's containers by the network's name in the file."""
        found: dict[str, list[str]] = {}
        for container in self.inspected(*self.containers(service)):
            for name, network in container["NetworkSettings"]["Networks"].items():
                found.setdefault(name.removeprefix(f"{self.project}_"), []).append(network["IPAddress"])
        return found

    def called(self, cluster: str) -> dict[str, int]:
        """How many calls Envoy has sent to each address of a cluster."""
        script = (
            "exec 3<>/dev/tcp/127.0.0.1/9901; "
            r"printf 'GET /clusters?format=json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n' >&3; cat <&3"
        )
        (envoy,) = self.containers("envoy")
        answer = self.execute(envoy, "bash", "-c", script)
        (hosts,) = [found["host_statuses"] for found in _json(answer)["cluster_statuses"] if found["name"] == cluster]
        return {
            host["address"]["socket_address"]["address"]: int(
                next(stat.get("value", 0) for stat in host["stats"] if stat["name"] == "rq_total")
            )
            for host in hosts
        }

    def logs(self, lines: int = 40) -> str:
        """The last lines of each container's log."""
        return self.compose("logs", "--no-color", "--tail", str(lines))


def _json(answer: str) -> Any:
    """The one line of JSON in an HTTP answer, whose lines end as those of text do. It may come in chunks."""
    body = answer.partition("\n\n")[2]
    return json.loads(
        re.sub(r"(^|\n)[0-9a-f]+\n", "", body) if "transfer-encoding: chunked" in answer.lower() else body
    )


def free_port(preferred: int) -> int:
    """The port that users have by default, or any other when somebody has that."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no port is free")


def wait_until(holds: Callable[[], object], seconds: float, what: Callable[[], object]) -> float:
    """Waits until `holds()`, and says how long that took; fails with `what()` after `seconds`."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, what()
        time.sleep(0.2)
    return time.monotonic() - began
