"""The route table as bytes, as the backplane carries it from the controller to the gateways. JSON, so that a person can
read it in Redis.
"""

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from portico.routing import RouteTable

FORMAT = 1
"""Raised when an older release could no longer read what this one writes. New fields with a default need no raise."""


@dataclass(frozen=True, slots=True)
class _Header:
    format: int


@dataclass(frozen=True, slots=True)
class _Snapshot:
    format: int
    table: RouteTable


_HEADER = TypeAdapter(_Header)
_SNAPSHOT = TypeAdapter(_Snapshot)


class UnreadableSnapshot(ValueError):
    """Bytes that are no route table of a format that this release knows."""


def dump(table: RouteTable) -> bytes:
    """The snapshot's bytes."""
    # pydantic has no form for a MappingProxyType, the default of empty mappings.
    return _SNAPSHOT.dump_json(_Snapshot(FORMAT, table), warnings=False, fallback=dict)


def load(snapshot: bytes) -> RouteTable:
    """The table in a snapshot; fields that this release does not know are passed over. Raises UnreadableSnapshot."""
    try:
        found = _HEADER.validate_json(snapshot).format
    except ValidationError as error:
        raise UnreadableSnapshot(f"The route table's snapshot cannot be read: {error}") from error
    if found != FORMAT:
        raise UnreadableSnapshot(
            f"The route table's snapshot has format {found}, this release reads {FORMAT}: "
            "run the same release of Portico for gateways and controller."
        )
    try:
        return _SNAPSHOT.validate_json(snapshot).table
    except ValidationError as error:
        raise UnreadableSnapshot(f"The route table's snapshot cannot be read: {error}") from error
