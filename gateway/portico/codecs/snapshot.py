"""The route table as bytes, as the backplane carries it from the controller to the gateways. JSON, so that a person can
read it in Redis: a line with the format and the revision, then one line for each model.

A table is always whole, and most of its lines are those of the table before: only the others are written and read anew.
"""

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from portico.routing import Model, RouteTable

FORMAT = 2
"""Raised when an older release could no longer read what this one writes. New fields with a default need no raise."""


@dataclass(frozen=True, slots=True)
class _Header:
    format: int
    revision: int = 0


_HEADER = TypeAdapter(_Header)
_MODEL = TypeAdapter(Model)


class UnreadableSnapshot(ValueError):
    """Bytes that are no route table of a format that this release knows."""


class Snapshots:
    """Writes and reads snapshots one after another. It remembers the models of the last, and nothing rests on that."""

    def __init__(self) -> None:
        self._written: dict[str, tuple[Model, bytes]] = {}
        self._read: dict[bytes, Model] = {}

    def dump(self, table: RouteTable) -> bytes:
        """The snapshot's bytes."""
        before, self._written = self._written, {}
        for name, model in table.models.items():
            known = before.get(name)
            self._written[name] = known if known and known[0] is model else (model, _line(model))
        header = _HEADER.dump_json(_Header(FORMAT, table.revision))
        return b"\n".join([header, *(line for _, line in self._written.values())])

    def load(self, snapshot: bytes) -> RouteTable:
        """The table in a snapshot; fields that this release does not know are passed over. A model whose line is as it
        was in the last snapshot is the same object again. Raises UnreadableSnapshot.
        """
        first, *lines = snapshot.split(b"\n")
        try:
            header = _HEADER.validate_json(first)
            if header.format != FORMAT:
                raise UnreadableSnapshot(
                    f"The route table's snapshot has format {header.format}, this release reads {FORMAT}: "
                    "run the same release of Portico for gateways and controller."
                )
            self._read = {line: self._read.get(line) or _MODEL.validate_json(line) for line in lines}
        except ValidationError as error:
            raise UnreadableSnapshot(f"The route table's snapshot cannot be read: {error}") from error
        return RouteTable({model.name: model for model in self._read.values()}, header.revision)


def _line(model: Model) -> bytes:
    # pydantic has no form for a MappingProxyType, the default of empty mappings.
    return _MODEL.dump_json(model, warnings=False, fallback=dict)
