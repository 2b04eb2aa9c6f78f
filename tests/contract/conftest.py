"""What several of the contract suites need."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from redis_server import RedisServer


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()
