"""The command `portico models`: every model and version with its state, asked of the gateway by REST, once or again and
again. Called by `portico.cli`; a client like others, it needs nothing but the address.
"""

import argparse
import http.client
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO
from urllib.parse import urlsplit

from portico.local.board import Paint
from portico.models_table import Entry, changes, entry_of, rendered, table

URL = "http://127.0.0.1:8080"
PATH = "/v1/models"
TIMEOUT = 5.0
"""Seconds the gateway has to answer."""
INTERVAL = 1.0
"""Seconds between two looks with --watch."""
MAX_BYTES = 64 << 20


class Unreachable(Exception):
    """The gateway gives no list of models; the message says why."""


def main(arguments: Sequence[str] | None = None, out: TextIO | None = None) -> int:
    """Prints the models; 0 then, 1 if the gateway cannot be asked. With --watch it goes on until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="portico models", description="Every model and version, and its state.")
    parser.add_argument("--url", default=URL, help=f"the address of the stack, {URL} if not given")
    parser.add_argument("--watch", action="store_true", help="go on, and show each change")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table; with --watch a line per change")
    options = parser.parse_args(arguments)
    stream = out or sys.stdout
    try:
        entries = ask(options.url)
        if options.watch:
            watch(entries, lambda: ask(options.url), stream, as_json=options.json)
        else:
            stream.write(rendered(entries) if options.json else table(entries, Paint(stream)))
        stream.flush()
    except Unreachable as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # Whoever read this has gone, as `head` does; Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return 0


def ask(url: str) -> list[Entry]:
    """The versions that the gateway at `url` lists. Raises Unreachable."""
    try:
        status, body = _get(url)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(
            f"{url} cannot be reached: {error}. Does the stack run? (--url names another address)"
        ) from error
    try:
        answer = json.loads(body)
        if status != http.client.OK:
            raise Unreachable(f"{url} answered {status}: {answer['error']}")
        return [entry_of(version) for version in answer["versions"]]
    except (ValueError, KeyError, TypeError) as error:
        raise Unreachable(f"{url} answered {status}, and not with a list of models: is it Portico?") from error


def _get(url: str) -> tuple[int, bytes]:
    parts = urlsplit(url if "//" in url else f"//{url}", "http")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an address is http://host:port or https://host:port")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=TIMEOUT)
    try:
        connection.request("GET", parts.path.rstrip("/") + PATH, headers={"accept": "application/json"})
        response = connection.getresponse()
        return response.status, response.read(MAX_BYTES)
    finally:
        connection.close()


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
