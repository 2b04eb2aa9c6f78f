"""The lists of all models, as Triton's, KServe's and our own clients see them."""

from dataclasses import replace

import pytest

from portico.routing import RouteTable, Server, State
from sample_gateway import SampleGateway, model

STATES = {
    "1": State.DRAINING,
    "2": State.READY,
    "3": State.READY,
    "4": State.UNAVAILABLE,
    "5": State.LOADING,
    "6": State.FAILED,
    "7": State.QUARANTINED,
}


async def test_the_repository_index(gateway: SampleGateway) -> None:
    """The index lists every version of every model with its state and the reason for it."""
    gateway.routes.replace(RouteTable({"iris": model("iris", Server.TF_SERVING, STATES)}))
    listed = (await gateway.rest("POST", "/v2/repository/index")).json()
    assert listed == [
        {
            "name": "iris",
            "version": version,
            "state": state.value,
            "reason": "" if version in "235" else f"iris is {state.value.lower()} for a reason",
        }
        for version, state in STATES.items()
    ]


async def test_the_index_of_all_models(gateway: SampleGateway) -> None:
    """Every model is in the index, also one that cannot be served."""
    listed = (await gateway.rest("POST", "/v2/repository/index", {"ready": False})).json()
    assert len(listed) == 14
    assert {entry["name"] for entry in listed} == set(gateway.routes.table.models)


async def test_the_index_of_what_is_ready(gateway: SampleGateway) -> None:
    """The index can be asked for what is ready only."""
    listed = (await gateway.rest("POST", "/v2/repository/index", {"ready": True})).json()
    assert {entry["state"] for entry in listed} == {"READY"}
    assert [entry["version"] for entry in listed if entry["name"] == "iris"] == ["1", "2"]


@pytest.mark.parametrize(("body", "says"), [(b"[", "not JSON"), ([], "JSON object"), ({"ready": 1}, "true or false")])
async def test_a_bad_request_for_the_index(gateway: SampleGateway, body: object, says: str) -> None:
    """A request for the index that makes no sense is 400, and says what is wrong."""
    status, answer = await gateway.refused("POST", "/v2/repository/index", body)
    assert (status, says in answer["error"]) == (400, True)


async def test_the_list_of_models(gateway: SampleGateway) -> None:
    """`GET /v1/models` has the names, as KServe's clients read them, and each version with its labels and its state."""
    iris = replace(model("iris", Server.TF_SERVING, STATES), default="2", labels={"stable": "2", "b": "3", "a": "3"})
    damaged = replace(model("damaged", Server.TORCHSERVE, {"": State.QUARANTINED}), server=None)
    gateway.routes.replace(RouteTable({"damaged": damaged, "iris": iris}))
    answer = (await gateway.rest("GET", "/v1/models")).json()
    assert answer["models"] == ["damaged", "iris"]
    assert answer["versions"][0] == {
        "name": "damaged",
        "version": "",
        "server": "",
        "state": "QUARANTINED",
        "reason": "damaged is quarantined for a reason",
        "labels": [],
        "default": False,
    }
    listed = answer["versions"][1:]
    assert [(entry["version"], entry["state"]) for entry in listed] == [(v, s.value) for v, s in STATES.items()]
    assert {entry["server"] for entry in listed} == {"tf_serving"}
    assert {entry["version"]: entry["labels"] for entry in listed if entry["labels"]} == {
        "2": ["stable"],
        "3": ["a", "b"],
    }
    assert [entry["version"] for entry in listed if entry["default"]] == ["2"]


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/models"), ("POST", "/v2/repository/index")])
async def test_before_the_first_snapshot(method: str, path: str) -> None:
    """Before any routes have come, there is no list, and no list that is empty: 503 with the reason."""
    status, body = await SampleGateway(routed=False).refused(method, path)
    assert (status, "controller" in body["error"]) == (503, True)


async def test_an_empty_repository(gateway: SampleGateway) -> None:
    """An empty repository is an empty list."""
    gateway.routes.replace(RouteTable())
    assert (await gateway.rest("GET", "/v1/models")).json() == {"models": [], "versions": []}
    assert (await gateway.rest("POST", "/v2/repository/index")).json() == []
