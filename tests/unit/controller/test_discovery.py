"""Replicas are found by DNS, also where each has two addresses."""

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

import pytest

from portico.controller.loaders import ReplicaUnreachable
from portico.controller.loaders import discovery as module
from portico.controller.loaders.discovery import Discovery

CALLED = {"10.1.0.5": "stack-torchserve-1.stack_servers", "10.1.0.4": "stack-torchserve-2.stack_servers"}
MANAGED = {"10.2.0.4": "stack-torchserve-1.stack_control", "10.2.0.5": "stack-torchserve-2.stack_control"}
TARGET = "inference=management:7071"


async def test_an_address_is_resolved_to_its_replicas() -> None:
    """A name gives one entry per address, an address itself; where it is called, it is managed."""
    assert await Discovery("127.0.0.1:8500").replicas() == {"127.0.0.1:8500": "127.0.0.1:8500"}
    assert await Discovery("[::1]:8500").replicas() == {"[::1]:8500": "[::1]:8500"}
    assert "127.0.0.1:7071" in await Discovery("localhost:7071").replicas()


@pytest.mark.parametrize("target", ["127.0.0.1:port", "127.0.0.1:99999999999", "127.0.0.1", f"{'x' * 64}.y:1", "a=b"])
async def test_an_address_that_means_nothing_says_so(target: str) -> None:
    """A target that is no address, or has none, is an error that says so."""
    with pytest.raises(ReplicaUnreachable, match="cannot be resolved"):
        await Discovery(target).replicas()


class Names:
    """A name server: addresses by name, and names by address."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, called: Mapping[str, str], managed: Mapping[str, str]) -> None:
        self.forward = {"inference": list(called), "management": list(managed)}
        self.reverse = {**called, **managed}
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", self.addresses)
        monkeypatch.setattr(loop, "getnameinfo", self.name)

    async def addresses(self, host: str, port: None, **options: Any) -> list[Any]:
        if host not in self.forward:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in self.forward[host]]

    async def name(self, where: tuple[str, int], flags: int) -> tuple[str, str]:
        if where[0] not in self.reverse:
            raise socket.gaierror(socket.EAI_NONAME, "no such address")
        return self.reverse[where[0]], "0"


async def test_the_two_addresses_of_a_replica_are_matched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Management in a network of its own: the replica is known by where it is called, and managed at its other one."""
    Names(monkeypatch, CALLED, MANAGED)
    assert await Discovery(TARGET).replicas() == {"10.1.0.5:7071": "10.2.0.4:7071", "10.1.0.4:7071": "10.2.0.5:7071"}


async def test_a_replica_with_one_address_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is only about to be in both networks is no replica yet."""
    names = Names(monkeypatch, CALLED, MANAGED)
    del names.reverse["10.1.0.4"]
    names.forward["management"].append("10.2.0.9")
    assert await Discovery(TARGET).replicas() == {"10.1.0.5:7071": "10.2.0.4:7071"}


async def test_no_match_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where reverse DNS knows no names, that is what is said."""
    Names(monkeypatch, CALLED, MANAGED).reverse.clear()
    with pytest.raises(ReplicaUnreachable, match=r"no address behind 'inference'.*reverse DNS"):
        await Discovery(TARGET).replicas()


async def test_a_name_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look ends after a while; an address whose name is not told counts as one without."""
    Names(monkeypatch, CALLED, MANAGED)

    async def hang(*_: object) -> tuple[str, str]:
        await asyncio.sleep(3600)
        return "", ""

    monkeypatch.setattr(module, "TIMEOUT", 0.05)
    monkeypatch.setattr(asyncio.get_running_loop(), "getnameinfo", hang)
    with pytest.raises(ReplicaUnreachable, match="by reverse DNS"):
        await Discovery(TARGET).replicas()
