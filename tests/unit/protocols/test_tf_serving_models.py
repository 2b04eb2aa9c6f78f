"""What is told of models in TF Serving's protocols, gRPC and REST alike: which version a client means."""

import pytest

from portico.errors import VersionNotFound
from portico.protocols import tf_serving_models as models
from portico.routing import RouteTable, Server, State
from sample_gateway import SampleGateway, model

READY = State.READY


def table(*versions: str) -> RouteTable:
    return RouteTable({"m": model("m", Server.TF_SERVING, dict.fromkeys(versions, READY))})


def test_version_0_is_the_default() -> None:
    """Clients of OpenVINO Model Server send 0 for the default version, and for all versions where status is asked."""
    assert models.resolve(table("1", "2"), "m", "0", "").version == "2"
    found = models.status(table("1", "2"), "m", "0", "").model_version_status
    assert [entry.version for entry in found] == [2, 1]


def test_a_version_that_is_called_0() -> None:
    """A model that has a version 0 is asked for it by 0, and the answer says that it was this one."""
    assert models.resolve(table("0", "1"), "m", "0", "").version == "0"
    assert [entry.version for entry in models.status(table("0", "1"), "m", "0", "").model_version_status] == [0]
    named = models.spec(models.resolve(table("0"), "m", "", ""))
    assert (named.HasField("version"), named.version.value) == (True, 0)


@pytest.mark.parametrize("version", ["00", "-0", "3"])
def test_other_numbers_are_versions(version: str) -> None:
    """Any other number that is no version is none."""
    with pytest.raises(VersionNotFound):
        models.resolve(table("1", "2"), "m", version, "")


async def test_version_0_over_rest(gateway: SampleGateway) -> None:
    """REST reads it the same in each path that has a version."""
    for method, path, body in (
        ("POST", ":predict", {"instances": [[1, 2, 3, 4]]}),
        ("GET", "", b""),
        ("GET", "/metadata", b""),
    ):
        answer = await gateway.rest(method, f"/v1/models/iris/versions/0{path}", body)
        assert answer.status == 200
