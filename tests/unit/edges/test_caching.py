"""What clients see of the cache, by REST and gRPC: `x-cache`, `age`, `etag`, 304, and answers without any parsing."""

import json
from dataclasses import replace

import pytest

from asgi_client import Answer, Headers
from portico.errors import InvalidRequest
from portico.inference import InferenceRequest, InferenceResponse
from portico.routing import CallPolicy, RouteTable
from portico.wire import open_inference_pb2 as oip
from sample_gateway import HALF, SampleGateway, model

INFER, METHOD = "/v2/models/half/infer", "/inference.GRPCInferenceService/ModelInfer"
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]}]}).encode()
MESSAGE = oip.ModelInferRequest(model_name="half")
MESSAGE.inputs.add(name="x", datatype="FP32", shape=[2]).contents.fp32_contents.extend([1, 2])


@pytest.fixture
def gateway() -> SampleGateway:
    return SampleGateway(memory=1 << 20)


async def rest(gateway: SampleGateway, *headers: tuple[bytes, bytes], body: bytes = BODY) -> Answer:
    return await gateway.rest("POST", INFER, body, headers)


async def by_grpc(gateway: SampleGateway, *metadata: tuple[bytes, bytes]) -> Answer:
    return await gateway.grpc(METHOD, MESSAGE, metadata)


def told(answer: Answer) -> tuple[str, str, str]:
    """(x-cache, etag, age), empty where there is none."""
    headers = dict(answer.headers)
    return tuple(headers.get(name, b"").decode() for name in (b"x-cache", b"etag", b"age"))  # type: ignore[return-value]


@pytest.mark.parametrize("ask", [rest, by_grpc])
async def test_what_clients_are_told(gateway: SampleGateway, ask: type[rest]) -> None:  # type: ignore[valid-type]
    """How the answer came about, a tag that is the same for the same answer, and its age once it is one of before."""
    first, second, third = [await ask(gateway) for _ in range(3)]
    (status, etag, age) = told(first)
    assert (status, etag[:3], age) == ("MISS", 'W/"', "")
    assert told(second) == told(third) == ("HIT", etag, "0")
    assert first.body == second.body == third.body
    assert told(await ask(gateway, (b"cache-control", b"no-store"))) == ("BYPASS", "", "")
    assert told(await ask(gateway, (b"cache-control", b"no-cache"))) == ("BYPASS", etag, "")


@pytest.mark.parametrize("ask", [rest, by_grpc])
async def test_a_remembered_request_is_not_parsed(
    gateway: SampleGateway,
    ask: type[rest],
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[valid-type]
) -> None:
    """Neither decoded nor resolved, and neither Redis nor a model server hears of it."""
    expected = await ask(gateway)
    gateway.cache.gone = True
    gateway.tf_serving.go_down()

    def fail(*_: object) -> InferenceRequest:
        raise InvalidRequest("it was parsed")

    monkeypatch.setattr("portico.protocols.open_inference_rest._decoded", fail)
    monkeypatch.setattr("portico.protocols.open_inference_grpc._parsed", fail)
    found = await ask(gateway)
    assert (found.body, told(found)[0]) == (expected.body, "HIT")


async def test_protocols_share_what_is_kept(gateway: SampleGateway) -> None:
    """What one protocol asked for first, another finds, with the same tag."""
    etag = told(await rest(gateway))[1]
    assert told(await by_grpc(gateway)) == ("HIT", etag, "0")
    assert told(await gateway.rest("POST", "/v1/models/half:predict", {"inputs": [1.0, 2.0]})) == ("HIT", etag, "0")
    assert len(gateway.tf_serving.calls) == 1


async def test_a_client_that_has_the_answer(gateway: SampleGateway) -> None:
    """304 without a body where `if-none-match` holds its tag, whoever computes the answer; else all of it."""
    etag = told(await rest(gateway))[1].encode()
    for control in ((), ((b"cache-control", b"no-cache"),)):
        found = await rest(gateway, (b"if-none-match", b'"other", ' + etag), *control)
        assert (found.status, found.body) == (304, b"")
        assert told(found)[1].encode() == etag
        assert b"content-length" not in dict(found.headers)
    assert (await rest(gateway, (b"if-none-match", b'"other"'))).status == 200
    other = BODY.replace(b"[1, 2]", b"[1, 3]")
    assert (await rest(gateway, (b"if-none-match", etag), body=other)).status == 200


async def test_only_what_is_kept(gateway: SampleGateway) -> None:
    """Else 504, or FAILED_PRECONDITION, with what to do."""
    control = (b"cache-control", b"only-if-cached")
    refused = await rest(gateway, control)
    assert (refused.status, "only-if-cached" in refused.json()["error"]) == (504, True)
    assert (await by_grpc(gateway, control)).grpc_status[0] == 9
    await rest(gateway)
    assert told(await rest(gateway, control))[0] == told(await by_grpc(gateway, control))[0] == "HIT"


async def test_directives_that_are_none(gateway: SampleGateway) -> None:
    """A wrong `max-age` is an error of the request."""
    answer = await rest(gateway, (b"cache-control", b"max-age=soon"))
    assert (answer.status, "max-age=60" in answer.json()["error"]) == (400, True)


async def test_no_answer_goes_back_in_time(gateway: SampleGateway) -> None:
    """Who was told a newer answer is not told the one before again, though it was remembered."""
    await rest(gateway)
    (digest,) = gateway.cache.entries
    other = await rest(gateway, body=BODY.replace(b"[1, 2]", b"[3, 4]"))
    (others,) = set(gateway.cache.entries) - {digest}
    newer = replace(gateway.cache.entries[others], stamp=gateway.cache.entries[digest].stamp)
    gateway.cache.entries[digest] = newer  # as another gateway has refreshed it
    assert (await rest(gateway, (b"cache-control", b"max-age=60"))).body == other.body
    assert (await rest(gateway)).body == other.body


async def test_a_shorter_ttl_holds_for_what_is_remembered(gateway: SampleGateway) -> None:
    """What was kept for longer, and is young enough still, is remembered for as long as the policy says now."""
    await rest(gateway)
    (digest,) = gateway.cache.entries
    kept = gateway.cache.entries[digest]
    gateway.cache.entries[digest] = replace(kept, stamp=replace(kept.stamp, stored_at=kept.stamp.stored_at - 60))
    models = dict(gateway.routes.table.models)
    version = models["half"].versions["1"]
    assert version.route is not None
    for ttl, remembered in ((3600, True), (61, True), (30, False)):
        route = replace(version.route, policy=CallPolicy(cache_ttl=ttl))
        models["half"] = replace(models["half"], versions={"1": replace(version, route=route)})
        gateway.routes.replace(RouteTable(models, 8))
        gateway.cache.entries[digest] = replace(kept, stamp=replace(kept.stamp, stored_at=kept.stamp.stored_at - 60))
        assert told(await rest(gateway))[0] == ("HIT" if remembered else "MISS")
        (found,) = [each for known in gateway.memory._known.values() for each in known.by_headers.values()]
        assert found.stamp.lifetime == ttl


async def test_errors_are_not_remembered(gateway: SampleGateway) -> None:
    """A model that failed once is asked again."""

    def fail(request: InferenceRequest) -> InferenceResponse:
        raise InvalidRequest("the model says no")

    works = gateway.tf_serving.servables["half-1--loaded"]
    gateway.tf_serving.servables["half-1--loaded"] = fail
    assert [(await rest(gateway)).status for _ in range(2)] == [400, 400]
    gateway.tf_serving.servables["half-1--loaded"] = works
    assert ((await rest(gateway)).status, len(gateway.tf_serving.calls)) == (200, 3)


async def test_another_default_version(gateway: SampleGateway) -> None:
    """The moment the route changes, what was remembered of the model is not said again."""
    before = await gateway.rest("POST", "/v2/models/iris/infer", iris())
    models = dict(gateway.routes.table.models)
    models["iris"] = model("iris", models["iris"].server, {"1": models["iris"].versions["1"].state}, HALF)  # type: ignore[arg-type]
    gateway.routes.replace(RouteTable(models, 8))
    after = await gateway.rest("POST", "/v2/models/half/infer", BODY)
    assert (before.json()["model_version"], after.status) == ("2", 200)
    refused = await gateway.rest("POST", "/v2/models/iris/infer", iris())
    assert refused.status == 400


def iris() -> dict[str, object]:
    return {"inputs": [{"name": "measurements", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}


@pytest.mark.parametrize("tenants", [(b"a", b"b"), (b"a", b"")])
async def test_tenants(tenants: tuple[bytes, bytes]) -> None:
    """Callers with another value of a header that the policy names get nothing that was kept for others."""
    gateway = SampleGateway(memory=1 << 20)
    models = dict(gateway.routes.table.models)
    version = models["half"].versions["1"]
    assert version.route is not None
    policy = CallPolicy(cache_vary=("x-tenant",))
    changed = replace(version, route=replace(version.route, policy=policy))
    models["half"] = replace(models["half"], versions={"1": changed})
    gateway.routes.replace(RouteTable(models, 8))
    found: list[str] = []
    for tenant in (*tenants, *tenants):
        headers: Headers = [(b"x-tenant", tenant)] if tenant else []
        found.append(told(await rest(gateway, *headers))[0])
    assert found == ["MISS", "MISS", "HIT", "HIT"]
