"""What a person sees while something takes long: one line for each thing under way, with its state and its seconds.

Used by both stages, so standard library only. On a terminal the lines are redrawn; anywhere else a line is printed when
something begins and ends, and now and then in between.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

STILL_ALIVE_SECONDS = 20.0
CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


class Paint:
    """Colours, for those who want them: on a terminal, unless NO_COLOR is set (no-color.org)."""

    def __init__(self, out: TextIO) -> None:
        self.terminal = out.isatty() and os.environ.get("TERM") != "dumb"
        self.colours = self.terminal and not os.environ.get("NO_COLOR")

    def __call__(self, colour: str, text: str) -> str:
        return f"\033[{CODES[colour]}m{text}\033[0m" if self.colours else text


@dataclass
class Row:
    """One thing under way."""

    name: str
    state: str
    mark: str = "…"
    colour: str = "yellow"
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    printed: float = 0.0
    changed: bool = True

    def seconds(self) -> float:
        """How long it has taken so far, or took."""
        return (self.ended or time.monotonic()) - self.began


class Board:
    """The rows. `draw` is to be called a few times a second by whoever waits; it is not thread-safe, the rest is."""

    def __init__(self, out: TextIO | None = None) -> None:
        self.out = out or sys.stdout
        self.paint = Paint(self.out)
        self.rows: dict[str, Row] = {}
        self._drawn = 0

    def state(self, name: str, state: str) -> None:
        """`name` is under way, and this is what it is doing."""
        row = self.rows.setdefault(name, Row(name, state))
        row.state = state
        if row.ended is not None:
            row.mark, row.colour, row.ended, row.changed = "…", "yellow", None, True

    def done(self, name: str, state: str) -> None:
        """`name` is through."""
        self._end(name, state, "✓", "green")

    def failed(self, name: str, state: str) -> None:
        """`name` has come to nothing."""
        self._end(name, state, "✗", "red")

    def _end(self, name: str, state: str, mark: str, colour: str) -> None:
        row = self.rows.setdefault(name, Row(name, state))
        row.state, row.mark, row.colour, row.ended, row.changed = state, mark, colour, time.monotonic(), True

    def draw(self) -> None:
        """Shows how things stand."""
        rows = list(self.rows.values())
        if self.paint.terminal:
            columns = shutil.get_terminal_size().columns
            back = f"\033[{self._drawn}A" if self._drawn else ""
            self.out.write(back + "".join(f"\r\033[K{self._line(row, columns)}\n" for row in rows))
            self._drawn = len(rows)
        else:
            now = time.monotonic()
            for row in rows:
                if row.changed or (row.ended is None and now - row.printed > STILL_ALIVE_SECONDS):
                    row.printed, row.changed = now, False
                    self.out.write(self._line(row, 200) + "\n")
        self.out.flush()

    def close(self) -> None:
        """Leaves the last picture standing and starts anew below it."""
        self.draw()
        self.rows.clear()
        self._drawn = 0

    def _line(self, row: Row, columns: int) -> str:
        room = max(columns - 28, 10)
        state = row.state if len(row.state) <= room else row.state[: room - 1] + "…"
        seconds = self.paint("dim", f"{row.seconds():6.1f} s")
        return f"  {self.paint(row.colour, row.mark)} {row.name:<12} {seconds}  {state}"
