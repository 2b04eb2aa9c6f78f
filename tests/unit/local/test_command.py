"""What `portico local` prints."""

import io
import signal
import sys
from dataclasses import replace
from typing import Any

import pytest

from portico.local import command
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


class StoppedWhileItWrites(io.RawIOBase):
    """Where standard output goes; Ctrl-C comes in the middle of a write."""

    def writable(self) -> bool:
        return True

    def write(self, written: Any) -> int:
        command.interrupt(signal.SIGINT, None)
        return memoryview(written).nbytes


def test_it_can_be_stopped_while_it_writes(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A signal's handler runs inside of `print`, which cannot be called again then."""
    before = {number: signal.getsignal(number) for number in command.STOPPING}
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(StoppedWhileItWrites())))
    try:
        with pytest.raises(KeyboardInterrupt):
            print("Serving", flush=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert "Stopping (SIGINT)" in capfd.readouterr().out
