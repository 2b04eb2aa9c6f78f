"""What `portico local` prints."""

from dataclasses import replace

from portico.local.addresses import USUAL, Addresses
from portico.local.command import for_operators


def test_where_operators_look() -> None:
    """Both metrics, and a command that asks this very stack for the cache."""
    usual = replace(Addresses.pick(), **USUAL)
    metrics, cache = for_operators(usual).splitlines()
    assert metrics == "Metrics: http://127.0.0.1:9400/metrics (controller), http://127.0.0.1:9401/metrics (gateway)"
    assert cache == "Cache: .venv/gateway/bin/python -m portico cache stats"
    elsewhere = for_operators(replace(usual, operators=1))
    assert elsewhere.endswith(" -m portico cache stats --url http://127.0.0.1:1")
