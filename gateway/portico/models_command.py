"""The command `portico models`: every model and version with its state, asked of the gateway by REST, once or again and
again. Called by `portico.cli`; a client like others, it needs nothing but the address.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from portico import asking
from portico.asking import Unreachable, ended
from portico.local.board import Paint
from portico.models_table import Entry, changes, entry_of, rendered, table

URL = "http://127.0.0.1:8080"
PATH = "/v1/models"
INTERVAL = 1.0
"""Seconds between two looks with --watch."""


def main(arguments: Sequence[str] | None = None, out: TextIO | None = None) -> int:
    """Prints the models; 0 then, 1 if the gateway cannot be asked. With --watch it goes on until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="portico models", description="Every model and version, and its state.")
    parser.add_argument("--url", default=URL, help=f"the address of the stack, {URL} if not given")
    parser.add_argument("--watch", action="store_true", help="go on, and show each change")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table; with --watch a line per change")
    options = parser.parse_args(arguments)

    def show(stream: TextIO) -> None:
        entries = ask(options.url)
        if options.watch:
            watch(entries, lambda: ask(options.url), stream, as_json=options.json)
        else:
            stream.write(rendered(entries) if options.json else table(entries, Paint(stream)))

    return ended(show, out)


def ask(url: str) -> list[Entry]:
    """The versions that the gateway at `url` lists. Raises Unreachable."""
    return asking.ask(url, PATH, lambda answer: [entry_of(one) for one in answer["versions"]], "a list of models")


def watch(
    entries: list[Entry],
    look: Callable[[], list[Entry]],
    out: TextIO,
    *,
    as_json: bool = False,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Shows the entries, then what changes, until interrupted. A gateway that goes away is waited for."""
    paint = Paint(out)
    redraws = paint.terminal and not as_json
    drawn, shown, trouble = 0, list[Entry](), ""
    while True:
        if redraws:
            drawn = _redraw(out, paint, entries, trouble, drawn)
        else:
            out.writelines(changes(shown, entries, as_json=as_json))
            out.flush()
        shown, before = entries, trouble
        pause(INTERVAL)
        try:
            entries, trouble = look(), ""
        except Unreachable as error:
            trouble = str(error)
        if trouble != before and not redraws:
            print(trouble or "The gateway answers again.", file=sys.stderr, flush=True)


def _redraw(out: TextIO, paint: Paint, entries: list[Entry], trouble: str, drawn: int) -> int:
    """Writes over the last picture, which was `drawn` lines high; returns how high the new one is."""
    size = shutil.get_terminal_size()
    lines = table(entries, paint, size.columns).splitlines()
    room = max(size.lines - 3, 2)
    if len(lines) > room:
        lines[room:] = [paint("dim", f"… and {len(lines) - room} more")]
    lines.append(
        paint("red", trouble[: size.columns]) if trouble else paint("dim", f"{time.strftime('%X')}  Ctrl-C ends")
    )
    back = f"\033[{drawn}A" if drawn else ""
    out.write(back + "".join(f"\r\033[K{line}\n" for line in lines) + "\033[J")
    out.flush()
    return len(lines)
