"""Asks a process of the stack whether it answers on its own interface, on loopback; used by `portico.local.parts`."""

import http.client
import json
import socket
from typing import Any

TIMEOUT_SECONDS = 2.0
LOOPBACK = "127.0.0.1"


def ask(port: int, method: str, path: str, body: str | None = None, host: str = LOOPBACK) -> tuple[int, bytes] | None:
    """Status and body of one HTTP call; None while nobody answers."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def http_status(port: int, path: str, host: str = LOOPBACK) -> int | None:
    """Status of a GET; None while nobody answers."""
    answer = ask(port, "GET", path, host=host)
    return answer and answer[0]


def json_of(port: int, method: str, path: str, body: str | None = None) -> Any:
    """The parsed answer with status 200; None while there is none."""
    answer = ask(port, method, path, body)
    return json.loads(answer[1]) if answer and answer[0] == 200 else None


def accepts(port: int, host: str = LOOPBACK) -> bool:
    """Whether somebody listens."""
    try:
        with socket.create_connection((host, port), TIMEOUT_SECONDS):
            return True
    except OSError:
        return False


def redis_answers(port: int) -> bool:
    """Whether Redis answers PING (redis.io/docs/reference/protocol-spec, inline commands)."""
    try:
        with socket.create_connection((LOOPBACK, port), TIMEOUT_SECONDS) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False
