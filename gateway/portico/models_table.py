"""The models as `portico models` shows them: entries of the gateway's list as a table, as changes, as JSON. It does not
know where the entries come from.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Paint = Callable[[str, str], str]
"""(colour, text) → the text in that colour, or as it is."""

HEADINGS = ("MODEL", "VERSION", "SERVER", "STATE", "LABELS", "REASON")
COLOURS = {"READY": "green", "LOADING": "yellow", "DRAINING": "dim", "UNAVAILABLE": "yellow"}
"""State → colour; others are red."""
SERVERS = {"tf_serving": "TF Serving", "torchserve": "TorchServe", "": "-"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A model's version as the gateway lists it."""

    name: str
    version: str
    server: str
    state: str
    reason: str
    labels: tuple[str, ...]
    default: bool

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self.state == "READY"

    @property
    def cells(self) -> tuple[str, ...]:
        """Its line of the table."""
        labels = [*(["default"] if self.default else []), *self.labels]
        server = SERVERS.get(self.server, self.server)
        cells = (self.name, self.version or "-", server, self.state, ", ".join(labels) or "-", self.reason)
        # A reason may be a model server's, with lines and worse.
        return tuple("".join(c if c.isprintable() else " " for c in cell) for cell in cells)


def entry_of(version: dict[str, Any]) -> Entry:
    """One of the versions that `GET /v1/models` lists. Raises KeyError and TypeError for what is none."""
    name, number, server, state, reason = (
        str(version[key]) for key in ("name", "version", "server", "state", "reason")
    )
    return Entry(name, number, server, state, reason, tuple(map(str, version["labels"])), version["default"] is True)


def rendered(entries: list[Entry]) -> str:
    """The entries as JSON, for programs."""
    return json.dumps([asdict(entry) for entry in entries], indent=2, ensure_ascii=False) + "\n"


def table(entries: list[Entry], paint: Paint, columns: int | None = None) -> str:
    """The entries as a table, its lines cut off at `columns` characters if that is given."""
    if not entries:
        return "There are no models in the repository yet; they are served as soon as they lie there.\n"
    rows = [entry.cells for entry in entries]
    widths = [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]
    lines = [_line(HEADINGS, widths, columns, paint, "bold")]
    lines += [_line(row, widths, columns, paint, "") for row in rows]
    return "".join(f"{line}\n" for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int], columns: int | None, paint: Paint, colour: str) -> str:
    padded = [f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)]
    text = "  ".join(padded).rstrip()
    if columns and len(text) > columns:
        text = text[: columns - 1] + "…"
    if colour:
        return paint(colour, text)
    begin = sum(widths[:3]) + 6
    state = cells[3]
    end = begin + len(state)
    return text[:begin] + paint(COLOURS.get(state, "red"), text[begin:end]) + text[end:] if end <= len(text) else text


def changes(before: list[Entry], after: list[Entry], *, as_json: bool) -> list[str]:
    """One line for each version that is new, another than before, or gone."""
    old = {(entry.name, entry.version): entry for entry in before}
    new = {(entry.name, entry.version): entry for entry in after}
    lines = []
    for key in [*new, *(key for key in old if key not in new)]:
        was, now = old.get(key), new.get(key)
        if was == now:
            continue
        if as_json:
            shown = asdict(now) if now else {"name": key[0], "version": key[1], "state": "GONE"}
            lines.append(json.dumps(shown, ensure_ascii=False) + "\n")
            continue
        states = [entry.state if entry else "-" for entry in (was, now)]
        change = " → ".join(dict.fromkeys(states)) if was else states[1]
        details = [text for text in (now.cells[4], now.cells[5]) if text not in ("", "-")] if now else ["gone"]
        lines.append("  ".join([time.strftime("%X"), f"{key[0]} {key[1]}".strip(), change, *details]) + "\n")
    return lines
