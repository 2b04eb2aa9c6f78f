"""Where Redis is, as the settings say it."""

from pathlib import Path

import pytest

from portico.redis_address import Kind, check_ca_file, parse, read_password


@pytest.mark.parametrize(
    ("url", "kind", "tls", "options"),
    [
        ("redis://cache", Kind.SERVER, False, {"host": "cache"}),
        ("redis://:p%40ss@cache:1/2", Kind.SERVER, False, {"host": "cache", "port": 1, "db": 2, "password": "p@ss"}),
        ("redis://me@[::1]:1/", Kind.SERVER, False, {"host": "::1", "port": 1, "username": "me"}),
        ("rediss://cache?ssl_check_hostname=no", Kind.SERVER, True, {"host": "cache", "ssl_check_hostname": False}),
        ("unix:///run/redis.sock?db=3", Kind.SERVER, False, {"path": "/run/redis.sock", "db": 3}),
        ("redis+cluster://me:secret@a", Kind.CLUSTER, False, {"username": "me", "password": "secret"}),
        ("rediss+cluster://a:1/0?ssl_cert_reqs=none", Kind.CLUSTER, True, {"ssl_cert_reqs": "none"}),
        ("redis+sentinel://me@a/cache/4", Kind.SENTINEL, False, {"username": "me", "db": 4}),
        ("rediss+sentinel://a/cache", Kind.SENTINEL, True, {}),
    ],
)
def test_urls(url: str, kind: Kind, tls: bool, options: dict[str, object]) -> None:
    """Each kind of Redis has its scheme, with and without TLS; the rest is read as in any URL."""
    place = parse(url)
    assert (place.kind, place.tls) == (kind, tls)
    assert {name: value for name, value in place.options.items() if name != "connection_class"} == options


def test_several_hosts() -> None:
    """A cluster and Sentinels have several, each with the port that is usual for it."""
    assert parse("redis+cluster://a,b:1,[::1]:2").hosts == (("a", 6379), ("b", 1), ("::1", 2))
    sentinels = parse("redis+sentinel://a,[::1]/my%20cache")
    assert (sentinels.hosts, sentinels.service) == ((("a", 26379), ("::1", 26379)), "my cache")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "begins with none of redis://"),
        ("cache:6379", "begins with none of"),
        ("http://cache", "begins with none of"),
        ("redis+other://cache", "begins with none of"),
        ("unix+cluster://cache", "begins with none of"),
        ("redis:///0", "names no host"),
        ("redis://a:1,b:2", r"several hosts: redis\+cluster"),
        ("redis://cache/one", "'one' is not the number"),
        ("redis://cache:70000", "Port"),
        ("redis://cache?decode_responses=yes", "'decode_responses' is none of db"),
        ("redis://cache?db=one", "db"),
        ("redis://cache?ssl_cert_reqs=none", "for TLS"),
        ("rediss://cache?ssl_cert_reqs=maybe", "maybe"),
        ("unix://run/redis.sock", "three slashes"),
        ("unix://", "three slashes"),
        ("redis+cluster://", "'' is not host:port"),
        ("redis+cluster://a,,b", "'' is not host:port"),
        ("redis+cluster://a:0", "'a:0' is not host:port"),
        ("redis+cluster://a:b", "'a:b' is not host:port"),
        ("redis+cluster://a/1", "no databases but 0"),
        ("redis+sentinel://a", "names no service"),
        ("redis+sentinel://a/cache/one", "'one' is not the number"),
    ],
)
def test_urls_that_are_none(url: str, says: str) -> None:
    """What cannot be read is refused, and the message says why."""
    with pytest.raises(ValueError, match=says):
        parse(url)


@pytest.mark.parametrize("url", ["redis://:secret@a:1,b:2", "redis+cluster://:secret@a:x", "other://:secret@a"])
def test_a_password_is_not_repeated(url: str) -> None:
    """Neither an error nor what is kept shows it."""
    with pytest.raises(ValueError, match=r"host|begins") as raised:
        parse(url)
    assert "secret" not in str(raised.value)
    assert "secret" not in repr(parse("redis://:secret@a"))


def test_a_password_in_a_file(tmp_path: Path) -> None:
    """The line's end is none of it, everything else is; without one, the error says why."""
    path = tmp_path / "password"
    for text, password in ((" pässword \r\n", " pässword "), ("x", "x")):
        path.write_bytes(text.encode())
        assert read_password(str(path)) == password
    for content, says in ((b"\n", "it is empty"), (b"\xff", "utf-8")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=says):
            read_password(str(path))
    with pytest.raises(ValueError, match="No such file"):
        read_password(str(tmp_path / "none"))


def test_certificates_in_a_file(tmp_path: Path) -> None:
    """A file without any is refused at the start, and not at the first connection."""
    path = tmp_path / "ca.pem"
    with pytest.raises(ValueError, match="No such file"):
        check_ca_file(str(path))
    path.write_text("no certificate\n")
    with pytest.raises(ValueError, match="no certificates can be read"):
        check_ca_file(str(path))
