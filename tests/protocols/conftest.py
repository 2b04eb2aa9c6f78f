"""Tests of a door that somebody else runs, at PORTICO_DOOR (host:port), as clients anywhere would call it. Without that
they are left out, and pytest's header says so: `make test` has tests/stack, which start a stack of their own.
"""

import os

import pytest
from calls import Door

collect_ignore_glob = [] if "PORTICO_DOOR" in os.environ else ["test_*.py"]


def pytest_report_header() -> str:
    return f"tests/protocols: {os.environ.get('PORTICO_DOOR', 'left out, PORTICO_DOOR (host:port) is not set')}"


@pytest.fixture(scope="session")
def door() -> Door:
    return Door(os.environ["PORTICO_DOOR"])
