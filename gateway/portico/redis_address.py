"""Reads where Redis is and how to get in: the URL, the files of the password and of the certificates. Called by the
settings, so that what is wrong is said at the start, and by `redis_connection`. It opens no connection.

| `PORTICO_REDIS_URL` | what it is |
|---|---|
| `redis://user@host:6379/0`, `rediss://…` | a server, without and with TLS |
| `unix:///run/redis.sock?db=0` | a server on this machine |
| `redis+cluster://host:6379,host:6379`, `rediss+cluster://…` | a cluster, and some of its nodes |
| `redis+sentinel://host:26379,host:26379/service/0`, `rediss+sentinel://…` | Sentinels, and the service they watch |
"""

import re
import ssl
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio.connection import Connection, SSLConnection, parse_url
from redis.exceptions import RedisError


class Kind(StrEnum):
    """What is at an address."""

    SERVER = ""
    CLUSTER = "cluster"
    SENTINEL = "sentinel"


SCHEMES = "redis://, rediss://, unix://, redis+cluster://, rediss+cluster://, redis+sentinel:// or rediss+sentinel://"
TLS_OPTIONS = ("cert_reqs", "check_hostname", "certfile", "keyfile", "min_version", "ciphers")
OPTIONS = ("db", "username", "password", "client_name", *(f"ssl_{name}" for name in TLS_OPTIONS))
"""What may stand behind the question mark; the rest of redis-py's options would change what we rely on."""

_PORTS = {Kind.CLUSTER: 6379, Kind.SENTINEL: 26379}
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:,@\[\]/]+)(?::(\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class RedisAccess:
    """The settings that open a Redis."""

    url: str
    password_file: str = ""
    ca_file: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """What a URL says. `options` are those of redis-py's connections; a cluster and Sentinels have several `hosts`."""

    kind: Kind
    tls: bool
    options: dict[str, Any] = field(repr=False)
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""


def parse(url: str) -> Place:
    """Reads a URL. Raises ValueError, which says what is wrong with it and does not repeat a password."""
    scheme, separator, rest = url.partition("://")
    protocol, _, kind = scheme.partition("+")
    if not separator or scheme not in ("unix", *(f"{tls}{one}" for tls in ("redis", "rediss") for one in _SUFFIXES)):
        raise ValueError(f"it begins with none of {SCHEMES}")
    rest, _, query = rest.partition("?")
    for name, _ in parse_qsl(query, keep_blank_values=True):
        if name not in OPTIONS:
            raise ValueError(f"its option {name!r} is none of {', '.join(OPTIONS)}")
    place = _several(protocol, Kind(kind), rest, query) if kind else _one(url, protocol)
    try:
        connection = place.options.get("connection_class", SSLConnection if place.tls else Connection)
        connection(**without(place.options, "connection_class"))
    except TypeError as error:
        raise ValueError("options that begin with ssl_ are for TLS, rediss://") from error
    except RedisError as error:
        raise ValueError(str(error)) from error
    return place


_SUFFIXES = ("", "+cluster", "+sentinel")


def _one(url: str, protocol: str) -> Place:
    parts = urlsplit(url)
    if protocol == "unix":
        if parts.hostname or not parts.path.strip("/"):
            raise ValueError("a socket is unix:///path/to/socket, with three slashes")
    elif "," in parts.netloc:
        raise ValueError(f"it names several hosts: {protocol}+cluster:// and {protocol}+sentinel:// do")
    elif not parts.hostname:
        raise ValueError("it names no host")
    elif not re.fullmatch(r"(/\d*)?", parts.path):
        raise ValueError(f"{parts.path[1:]!r} is not the number of a database")
    return Place(Kind.SERVER, protocol == "rediss", dict(parse_url(url)))


def _several(protocol: str, kind: Kind, rest: str, query: str) -> Place:
    authority, _, path = rest.partition("/")
    user, at, hosts = authority.rpartition("@")
    service, _, database = path.partition("/") if kind is Kind.SENTINEL else ("", "", path)
    if kind is Kind.SENTINEL and not service:
        raise ValueError(f"it names no service: {protocol}+sentinel://host:26379/service")
    if not re.fullmatch(r"\d*", database):
        raise ValueError(f"{database!r} is not the number of a database")
    options = without(dict(parse_url(f"{protocol}://{user}{at}host/{database}?{query}")), "connection_class", "host")
    if kind is Kind.CLUSTER and options.pop("db", 0):
        raise ValueError("a cluster has no databases but 0")
    return Place(
        kind, protocol == "rediss", options, tuple(_host(one, kind) for one in hosts.split(",")), unquote(service)
    )


def _host(text: str, kind: Kind) -> tuple[str, int]:
    match = _HOST.fullmatch(text)
    port = int(match[2] or _PORTS[kind]) if match else 0
    if not match or not 0 < port < 65536:
        raise ValueError(f"{text!r} is not host:port")
    return match[1].strip("[]"), port


def without(options: dict[str, Any], *names: str) -> dict[str, Any]:
    """The options but for some."""
    return {name: value for name, value in options.items() if name not in names}


def read_password(path: str) -> str:
    """The password in a file, without the line's end. Raises ValueError, which says why there is none."""
    try:
        password = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"no password can be read from {path}: {error}") from error
    if not password:
        raise ValueError(f"no password can be read from {path}: it is empty")
    return password


def check_ca_file(path: str) -> None:
    """Raises ValueError if there are no certificates in a file."""
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # as is ssl.SSLError
        raise ValueError(f"no certificates can be read from {path}: {error}") from error
