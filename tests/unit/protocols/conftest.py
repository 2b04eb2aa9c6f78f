"""The gateway that each protocol is tested in."""

import pytest

from sample_gateway import SampleGateway


@pytest.fixture
def gateway() -> SampleGateway:
    return SampleGateway()
