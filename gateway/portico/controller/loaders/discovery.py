"""Finds the replicas of a model server by DNS: every address behind a name is one. Used by `channels`."""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Iterable

from portico.controller.loaders import ReplicaUnreachable

TIMEOUT = 2.0
"""Seconds for one look."""

_log = logging.getLogger(__name__)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Discovery:
    """Replicas of `targets`: host:port, or several with commas; each address behind a host is one.

    A target may be name=host:port, for servers whose management is in a network of its own: they are managed at
    host:port, and calls reach them at the addresses behind `name`. The two addresses of one replica have the same host
    name by reverse DNS, which is that of the container (its first label; the second is the network's).
    """

    def __init__(self, targets: str) -> None:
        self._targets = [target for each in targets.split(",") if (target := each.strip())]
        self._problem = ""

    async def replicas(self) -> dict[str, str]:
        """Where each replica is managed (ip:port), by the address at which calls reach it, with the same port.

        What cannot be found is left out, and said in the log once. Raises ReplicaUnreachable if nothing can be found.
        """
        answers = await asyncio.gather(*map(_resolve, self._targets), return_exceptions=True)
        problem = "; ".join(str(answer) for answer in answers if isinstance(answer, BaseException))
        found = {
            called: managed for answer in answers if isinstance(answer, dict) for called, managed in answer.items()
        }
        if not found:
            raise ReplicaUnreachable(problem or "it has no address")
        if problem and problem != self._problem:
            _log.warning("%s; going on without it", problem)
        self._problem = problem
        return found


async def _resolve(target: str) -> dict[str, str]:
    """The replicas of one target, as in `Discovery.replicas`, sorted. Raises ReplicaUnreachable."""
    name, _, managed = target.rpartition("=")
    host, _, port = managed.rpartition(":")
    if not (port.isdecimal() and 0 < int(port) < 1 << 16):
        raise ReplicaUnreachable(f"'{target}' cannot be resolved: it has to be host:port")
    addresses = await _look_up(host.strip("[]"))
    pairs = await _matched(name, addresses) if name else zip(addresses, addresses, strict=True)
    return {_written(called, port): _written(address, port) for called, address in sorted(pairs)}


async def _matched(name: str, managed: list[_Address]) -> list[tuple[_Address, _Address]]:
    """(address for calls, address of management) of each replica. One that has only one of them yet is left out: it is
    about to be there, or to be gone. Raises ReplicaUnreachable if that leaves none.
    """
    called = await _look_up(name)
    names = await _names({*called, *managed})
    by_name = {names[address]: address for address in called if address in names}
    pairs = [(by_name[names[address]], address) for address in managed if names.get(address) in by_name]
    if not pairs:
        raise ReplicaUnreachable(f"no address behind '{name}' is that of a server which is managed, by reverse DNS")
    return pairs


async def _look_up(host: str) -> list[_Address]:
    try:
        async with asyncio.timeout(TIMEOUT):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except TimeoutError as error:
        raise ReplicaUnreachable(f"looking up '{host}' took more than {TIMEOUT} s") from error
    except (OSError, UnicodeError) as error:
        raise ReplicaUnreachable(f"'{host}' cannot be resolved: {error}") from error
    addresses = {ipaddress.ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found}
    # A host with both kinds has one server behind them.
    return sorted(a for a in addresses if a.version == min(b.version for b in addresses))


async def _names(addresses: Iterable[_Address]) -> dict[_Address, str]:
    """The first label of each address's host name; addresses without one, or for which it takes long, are left out."""

    async def look(address: _Address) -> tuple[_Address, str] | None:
        try:
            async with asyncio.timeout(TIMEOUT):
                name, _ = await asyncio.get_running_loop().getnameinfo((str(address), 0), socket.NI_NAMEREQD)
        except OSError:  # as is TimeoutError
            return None
        return address, name.partition(".")[0]

    return dict(found for found in await asyncio.gather(*map(look, addresses)) if found)


def _written(address: _Address, port: str) -> str:
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"
