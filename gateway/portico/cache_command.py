"""The command `portico cache`: what the response cache holds, and how to drop it. It asks the controller at its address
for operators (`controller/cache_api.py`). Called by `portico.cli`.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any, TextIO
from urllib.parse import quote

from portico.asking import ask, ended
from portico.local.board import Paint

URL = "http://127.0.0.1:9400"
PATH = "/v1/cache"
STATS_TIMEOUT = 20.0
"""Seconds; the controller counts for five at most, once it has done what others asked."""
PURGE_TIMEOUT = 600.0
"""Seconds; Redis is to go on serving while millions of entries are removed."""

HEADINGS = ("MODEL", "ANSWERS", "SIZE")


def main(arguments: Sequence[str] | None = None, out: TextIO | None = None) -> int:
    """Looks at the cache or purges it; 0 then, 1 if the controller cannot be asked or knows no such model."""
    options = _parser().parse_args(arguments)

    def show(stream: TextIO) -> None:
        stream.write(_stats(options, Paint(stream)) if options.command == "stats" else _purge(options))

    return ended(show, out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="portico cache", description="The response cache, for operators.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    stats = commands.add_parser("stats", help="what is kept of each model, and how full Redis is")
    stats.add_argument("--json", action="store_true", help="JSON instead of a table")
    purge = commands.add_parser("purge", help="forget the answers of a model, in Redis and in all gateways")
    which = purge.add_mutually_exclusive_group(required=True)
    which.add_argument("model", nargs="?", metavar="MODEL", help="the model")
    which.add_argument("--all", action="store_true", help="every model")
    for command in (stats, purge):
        command.add_argument("--url", default=URL, help=f"the controller's address for operators, {URL} if not given")
    return parser


def _stats(options: argparse.Namespace, paint: Paint) -> str:
    def read(answer: Any) -> str:
        text = table(answer, paint)
        return json.dumps(answer, indent=2) + "\n" if options.json else text

    return ask(options.url, PATH, read, "what the cache holds", timeout=STATS_TIMEOUT)


def _purge(options: argparse.Namespace) -> str:
    path = PATH if options.all else f"{PATH}/{quote(options.model, safe='')}"
    whose = "all models" if options.all else options.model

    def read(answer: Any) -> str:
        count = int(answer["removed"])
        return f"{count:,} {'answer' if count == 1 else 'answers'} of {whose} removed.\n"

    return ask(options.url, path, read, "what was removed", method="DELETE", timeout=PURGE_TIMEOUT)


def table(answer: dict[str, Any], paint: Paint) -> str:
    """The controller's answer for people. Raises KeyError, TypeError and ValueError for what is none."""
    amounts = [(str(one["model"]), int(one["entries"]), int(one["bytes"])) for one in answer["models"]]
    if len(amounts) > 1:
        amounts.append(("all", sum(amount[1] for amount in amounts), sum(amount[2] for amount in amounts)))
    rows = [(name, f"{entries:,}", size(bytes_)) for name, entries, bytes_ in amounts]
    widths = [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]
    lines = [paint("bold", _line(HEADINGS, widths)), *(_line(row, widths) for row in rows)] if rows else []
    if not rows:
        lines.append("The cache is empty.")
    if len(rows) > 1:
        lines[-1] = paint("bold", lines[-1])
    if not answer["complete"]:
        lines.append(paint("yellow", "There are more: counting them all would have taken too long."))
    redis = answer["redis"]
    maximum = f"of {size(redis['maxmemory'])}" if redis["maxmemory"] else "without a bound"
    lines += ["", f"Redis uses {size(redis['used_memory'])} {maximum}; it has evicted {redis['evicted_keys']:,} keys."]
    return "".join(f"{line}\n" for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    right = [f"{cell:>{width}}" for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "  ".join([f"{cells[0]:<{widths[0]}}", *right])


def size(count: int) -> str:
    """Bytes for a person: 512 B, 3.4 KiB, 256.0 MiB."""
    if count < 1024:
        return f"{count} B"
    power = 1 + (count >= 1023.95 * 2**10) + (count >= 1023.95 * 2**20)
    return f"{count / 1024**power:,.1f} {'KMG'[power - 1]}iB"
