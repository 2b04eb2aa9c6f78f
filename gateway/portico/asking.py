"""What the commands that people ask a running stack with have in common: HTTP, JSON, and how they end. They are clients
like others and need nothing but an address. Called by `models_command` and `cache_command`.
"""

import http.client
import json
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO, TypeVar
from urllib.parse import urlsplit

TIMEOUT = 5.0
"""Seconds an answer may take, if nothing else is said."""
MAX_BYTES = 64 << 20

T = TypeVar("T")


class Unreachable(Exception):
    """There is no answer, or none that was asked for; the message says why."""


def ask(
    url: str, path: str, read: Callable[[Any], T], what: str, *, method: str = "GET", timeout: float = TIMEOUT
) -> T:
    """What `read` makes of the JSON at `path` of the address `url`; it may raise ValueError, KeyError and TypeError for
    what is not `what` ("a list of models").

    Raises Unreachable.
    """
    try:
        status, body = _request(url, path, method, timeout)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(
            f"{url} cannot be reached: {error}. Does the stack run? (--url names another address)"
        ) from error
    try:
        answer = json.loads(body)
        if status != http.client.OK:
            raise Unreachable(f"{url} answered {status}: {answer['error']}")
        return read(answer)
    except (ValueError, KeyError, TypeError) as error:
        raise Unreachable(f"{url} answered {status}, and not with {what}: is it Portico?") from error


def _request(url: str, path: str, method: str, timeout: float) -> tuple[int, bytes]:
    parts = urlsplit(url if "//" in url else f"//{url}", "http")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an address is http://host:port or https://host:port")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=timeout)
    try:
        connection.request(method, parts.path.rstrip("/") + path, headers={"accept": "application/json"})
        response = connection.getresponse()
        return response.status, response.read(MAX_BYTES)
    finally:
        connection.close()


def ended(command: Callable[[TextIO], None], out: TextIO | None) -> int:
    """Runs a command that writes to `out`, or standard output; its exit code: 1 if there was no answer."""
    stream = out or sys.stdout
    try:
        command(stream)
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
