"""TorchServe's management API as its clients see it: to read, and nothing else."""

from dataclasses import replace
from typing import Any

import pytest

from portico.routing import CallPolicy, Model, Route, RouteTable, Server, State, Version
from sample_gateway import SampleGateway, repository


async def got(gateway: SampleGateway, path: str) -> Any:
    answer = await gateway.rest("GET", path)
    assert answer.status == 200
    return answer.json()


def many(count: int) -> SampleGateway:
    """A gateway with so many models, m000 and on."""
    names = [f"m{number:03}" for number in reversed(range(count))]
    return SampleGateway(
        table=RouteTable(
            {name: Model(name, Server.TORCHSERVE, "1", {"1": Version("1", State.LOADING)}) for name in names}
        )
    )


async def test_all_models(gateway: SampleGateway) -> None:
    """Every model is listed by name, whichever server has it and however it stands; none that is being removed."""
    leaving = Model("leaving", Server.TORCHSERVE, "", {"1": Version("1", State.DRAINING)})
    table = repository()
    gateway.routes.replace(RouteTable({**table.models, "leaving": leaving}))
    assert await got(gateway, "/models") == {"models": [{"modelName": name} for name in sorted(table.models)]}


@pytest.mark.parametrize(
    ("count", "query", "expected", "token"),
    [
        (3, "", (0, 3), None),
        (100, "", (0, 100), None),
        (101, "", (0, 100), "100"),
        (101, "next_page_token=100", (100, 101), None),
        (5, "limit=2", (0, 2), "2"),
        (5, "limit=2&next_page_token=2", (2, 4), "4"),
        (5, "limit=2&next_page_token=4", (4, 5), None),
        (4, "limit=2&next_page_token=2", (2, 4), None),
        (5, "next_page_token=9", (5, 5), None),
        (101, "limit=1000", (0, 100), "100"),
        (101, "limit=0", (0, 100), "100"),
        (5, "limit=-1&next_page_token=-7", (0, 5), None),
        (5, "limit=two&next_page_token=", (0, 5), None),
    ],
)
async def test_pages(count: int, query: str, expected: tuple[int, int], token: str | None) -> None:
    """Models come in pages, in the order of their names; the token of the next is there where there is one."""
    page = await got(many(count), f"/models?{query}")
    assert [model["modelName"] for model in page["models"]] == [f"m{number:03}" for number in range(*expected)]
    assert page.get("nextPageToken") == token


@pytest.mark.parametrize(
    ("path", "versions"),
    [("digits", ["1.1"]), ("digits/1.0", ["1.0"]), ("digits/all", ["1.0", "1.1"]), ("iris", ["2"]), ("loading", ["1"])],
)
async def test_versions(gateway: SampleGateway, path: str, versions: list[str]) -> None:
    """The default version is described, or the one named, or all; a list in each case."""
    described = await got(gateway, f"/models/{path}")
    assert [entry["modelVersion"] for entry in described] == versions
    assert {entry["modelName"] for entry in described} == {path.split("/")[0]}


@pytest.mark.parametrize(
    ("model", "status", "workers", "reason"),
    [
        ("digits", "READY", [{"status": "READY"}], None),
        ("loading", "LOADING", [], None),
        ("away", "UNAVAILABLE", [], "away is unavailable for a reason"),
        ("refused", "FAILED", [], "refused is failed for a reason"),
        ("damaged", "QUARANTINED", [], "damaged is quarantined for a reason"),
    ],
)
async def test_a_description(
    gateway: SampleGateway, model: str, status: str, workers: list[Any], reason: str | None
) -> None:
    """A version is described by its state, with a worker that is ready if it is, and with the reason if it is not."""
    (described,) = await got(gateway, f"/models/{model}")
    assert (described["status"], described["workers"], described.get("reason")) == (status, workers, reason)
    assert "--loaded" not in str(described)


async def test_a_model_with_state(gateway: SampleGateway) -> None:
    """Whether a model keeps state is told as its policy says."""
    route = Route("s", "1", Server.TORCHSERVE, "s--loaded", "1", "print", policy=CallPolicy(stateful=True))
    model = Model("s", Server.TORCHSERVE, "1", {"1": Version("1", State.READY, route=route)})
    other = replace(
        model, name="t", versions={"1": Version("1", State.READY, route=replace(route, policy=CallPolicy()))}
    )
    gateway.routes.replace(RouteTable({"s": model, "t": other}))
    assert [(await got(gateway, f"/models/{name}"))[0]["stateful"] for name in "st"] == [True, False]


@pytest.mark.parametrize(
    ("path", "kind", "says"),
    [
        ("/models/digit", "ModelNotFoundException", "Model not found: digit. "),
        ("/models/digit/all", "ModelNotFoundException", "Model not found: digit. "),
        ("/models/digits/9", "ModelVersionNotFoundException", "Model version: 9 does not exist for model: digits. "),
        ("/models/", "ResourceNotFoundException", "Requested resource is not found"),
        ("/models/digits/1.0/set-default", "ResourceNotFoundException", "Requested resource is not found"),
    ],
)
async def test_what_is_not_there(gateway: SampleGateway, path: str, kind: str, says: str) -> None:
    """What is not there is 404 in TorchServe's form and words."""
    status, answer = await gateway.refused("GET", path)
    assert (status, answer["code"], answer["type"]) == (404, 404, kind)
    assert answer["message"].startswith(says)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/models?url=https://example.org/x.mar"),
        ("PUT", "/models/digits?min_worker=3"),
        ("PUT", "/models/digits/1.0"),
        ("PUT", "/models/digits/1.0/set-default"),
        ("DELETE", "/models/digits"),
        ("DELETE", "/models/digits/1.0"),
        ("PATCH", "/models"),
    ],
)
async def test_what_would_change_a_model(gateway: SampleGateway, method: str, path: str) -> None:
    """What would change a model is 405 in TorchServe's form and words, and says that files do it."""
    answer = await gateway.rest(method, path)
    assert (answer.status, answer.header(b"allow")) == (405, "GET")
    refused = answer.json()
    assert (refused["code"], refused["type"]) == (405, "MethodNotAllowedException")
    assert refused["message"].startswith("Requested method is not allowed, please refer to API document. ")
    assert "files of the model repository" in refused["message"]


async def test_before_there_are_routes() -> None:
    """Before the controller has told of any model, that is what is said, and not that there are none."""
    status, answer = await SampleGateway(routed=False).refused("GET", "/models")
    assert (status, answer["type"]) == (503, "ServiceUnavailableException")
