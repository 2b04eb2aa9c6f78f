"""What a dockerd changes on its host, remembered before it starts and put back when it has ended.

Called by engine_daemon, with iptables on PATH.
"""

import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TABLES = ("filter", "nat")
SETTINGS = (
    Path("/proc/sys/net/ipv4/ip_forward"),
    Path("/proc/sys/net/bridge/bridge-nf-call-iptables"),
    Path("/proc/sys/net/bridge/bridge-nf-call-ip6tables"),
)
CGROUPS = Path("/sys/fs/cgroup")
COMMAND_SECONDS = 30.0


@dataclass(frozen=True)
class State:
    """The packet filter's rules, the kernel's settings for forwarding, the network interfaces and the cgroups."""

    rules: str
    settings: dict[Path, str]
    interfaces: frozenset[str]
    cgroups: frozenset[Path]

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "State":
        """As it is now."""
        rules = "".join(_run(environment, "iptables-save", "--table", table) for table in TABLES)
        settings = {path: path.read_text() for path in SETTINGS if path.exists()}
        return cls(rules, settings, _interfaces(), _cgroups())

    def restore(self, environment: Mapping[str, str]) -> None:
        """Removes bridges that are left, puts rules and settings back. Rules that others added since are lost."""
        for name in _interfaces() - self.interfaces:
            if name == "docker0" or name.startswith("br-"):
                _run(environment, "ip", "link", "delete", name)
        _run(environment, "iptables-restore", text=self.rules)
        for path, value in self.settings.items():
            path.write_text(value)
        for cgroup in sorted(_cgroups() - self.cgroups, reverse=True):  # children first
            with suppress(OSError):  # something else is in it
                cgroup.rmdir()


def _interfaces() -> frozenset[str]:
    return frozenset(name for _, name in socket.if_nameindex())


def _cgroups() -> frozenset[Path]:
    """Docker's, one in each hierarchy of version 1, with those in it."""
    roots = [*CGROUPS.glob("docker"), *CGROUPS.glob("*/docker")]
    return frozenset(path for root in roots for path in (root, *root.rglob("*/")))


def _run(environment: Mapping[str, str], *command: str, text: str = "") -> str:
    done = subprocess.run(
        command, env=environment, input=text, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=True
    )
    return done.stdout
