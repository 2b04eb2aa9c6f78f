"""The port to the model servers, as the reconcile loop sees them, with one adapter per kind of server beside it. An
adapter knows one server's management API, and nothing of policies or routes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

from portico.controller.servable import Servable
from portico.routing import Server, Signature


class LoadState(StrEnum):
    """Where a servable stands in one replica. What is not loaded has none."""

    LOADING = "LOADING"
    READY = "READY"
    FAILED = "FAILED"
    UNLOADING = "UNLOADING"


@dataclass(frozen=True, slots=True)
class Status:
    """A servable's state in one replica: why it failed, and how it is called once it is ready."""

    state: LoadState
    reason: str = ""
    signatures: Mapping[str, Signature] = field(default_factory=lambda: MappingProxyType({}))


Report = Mapping[str, Status]
"""What one replica has, by the servable's name."""


class LoaderError(Exception):
    """The server refused or could not do it; the message is for the user and holds no name of a servable."""


class ReplicaUnreachable(LoaderError):
    """The replica does not answer."""


class Loader(Protocol):
    """Drives all replicas of one kind of model server. Every call ends within a timeout of its own."""

    @property
    def server(self) -> Server:
        """The kind of server."""
        ...

    async def replicas(self) -> tuple[str, ...]:
        """The address (ip:port) of each replica there is now. Raises ReplicaUnreachable if none can be found."""
        ...

    async def report(self, address: str, known: Iterable[Servable]) -> Report:
        """Which servables of ours the replica has. `known` are those that may be there: not every server can list.

        Raises ReplicaUnreachable.
        """
        ...

    async def load(self, address: str, servable: Servable) -> None:
        """Returns when the load has come to an end, which `report` then tells; loading what is loaded does nothing.

        Raises LoaderError.
        """
        ...

    async def unload(self, address: str, name: str) -> None:
        """Returns when the servable is gone or going; unloading what is not loaded does nothing. Raises LoaderError."""
        ...

    async def close(self) -> None:
        """Closes all connections."""
        ...
