"""What people do to a stack of containers while clients call it: models change, services scale, processes die."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest
from composed import SERVICES, Composed, wait_until
from probe_models import SavedModels, archive
from swap_changes import at_once, slowly
from swap_load import Clients, Watched, load_on

SWAP_SECONDS = 120.0
HEALTHY_SECONDS = 15.0
REPLICATED = {"gateway": "gateway", "tf-serving": "tf_serving", "torchserve": "torchserve_rest"}
"""The services that may have several replicas, and Envoy's cluster of each."""

pytestmark = pytest.mark.timeout(600)


class Models:
    """Two models for each server, each called by REST and by gRPC, each answering with the number of its content."""

    def __init__(self, stack: Composed, saved_models: SavedModels) -> None:
        self.stack = stack
        self.saved_models = saved_models
        self.content = 1

    def put(self) -> None:
        """The first content of each; two of them as single archives."""
        for name in ("tf-rest", "tf-grpc"):
            (self.stack.models / name).mkdir()
            at_once(self.stack.models / name / "1", self.saved_models.files(self.content))
        for name in ("torch-rest", "torch-grpc"):
            self.write(f"{name}.mar", archive(self.content))

    def write(self, path: str, data: bytes) -> None:
        """A file, written in place."""
        (self.stack.models / path).write_bytes(data)

    def watched(self, clients: Clients) -> list[Watched]:
        """All of them, as they are now."""
        calls = {
            "tf-rest": clients.tf_rest,
            "tf-grpc": clients.tf_grpc,
            "torch-rest": clients.torch_rest,
            "torch-grpc": clients.torch_grpc,
        }
        found = [Watched(name, call) for name, call in calls.items()]
        for one in found:
            one.allow(self.content)
        return found


@pytest.fixture(scope="module")
def models(stack: Composed, saved_models: SavedModels) -> Models:
    """The four models, dropped into the bind mount."""
    found = Models(stack, saved_models)
    found.put()
    return found


@asynccontextmanager
async def calling(models: Models) -> AsyncIterator[list[Watched]]:
    """Load on all models, once they answer."""
    async with Clients.open(models.stack.port) as clients:
        watched = models.watched(clients)
        await asyncio.gather(*(one.until(models.content, SWAP_SECONDS, may_fail=True) for one in watched))
        async with load_on(watched):
            yield watched


def failures(watched: Iterable[Watched]) -> list[str]:
    """What went wrong for clients."""
    return [failure for one in watched for failure in one.failures]


def answered(watched: Iterable[Watched]) -> bool:
    """Whether every model was called again and again, and answered."""
    return all(one.answers > 10 for one in watched)


async def change(models: Models, watched: list[Watched]) -> None:
    """A new version dropped for two models, the archives of the other two overwritten; until all answer by the new."""
    before, after = models.content, models.content + 1
    for one in watched:
        one.allow(before, after)
    models.content = after
    folders = [models.stack.models / name / str(after) for name in ("tf-rest", "tf-grpc")]
    await asyncio.gather(*(slowly(folder, models.saved_models.files(after)) for folder in folders))
    for name in ("torch-rest", "torch-grpc"):
        models.write(f"{name}.mar", archive(after))
    await asyncio.gather(*(one.until(after, SWAP_SECONDS) for one in watched))
    for one in watched:
        one.allow(after)


async def test_files_are_swapped_under_load(models: Models) -> None:
    """A version dropped into the bind mount is served, archives are overwritten in place, and no call fails."""
    async with calling(models) as watched:
        await change(models, watched)
        await asyncio.sleep(1)
    assert failures(watched) == []
    assert answered(watched)


async def test_each_service_scales_up_and_down_under_load(models: Models) -> None:
    """Two gateways, three of TF Serving and two of TorchServe: all take calls and changes; then one each again; and no
    call fails.
    """
    stack = models.stack
    async with calling(models) as watched:
        await asyncio.to_thread(stack.up, gateway=2, tf_serving=3, torchserve=2)
        for service, cluster in REPLICATED.items():
            replicas = len(stack.containers(service))
            assert replicas == {"gateway": 2, "tf-serving": 3, "torchserve": 2}[service]
            await asyncio.to_thread(
                wait_until,
                lambda cluster=cluster, replicas=replicas: (
                    len(called := stack.called(cluster)) == replicas and all(called.values())
                ),
                60,
                lambda cluster=cluster: f"not all of {cluster} are called: {stack.called(cluster)}",
            )
        await change(models, watched)
        await asyncio.to_thread(stack.up, gateway=1, tf_serving=1, torchserve=1)
        for service in REPLICATED:
            assert len(stack.containers(service)) == 1
        await asyncio.sleep(3)
    assert failures(watched) == []
    assert answered(watched)


async def test_each_process_is_killed_under_load(models: Models) -> None:
    """With two of what may have replicas, each main process dies in turn. Only calls that are under way in it
    may fail, and those of a model server are made again elsewhere. All is healthy again within 15 seconds.
    """
    stack = models.stack
    await asyncio.to_thread(stack.up, gateway=2, tf_serving=2, torchserve=2)
    lost: dict[str, list[str]] = {}
    async with calling(models) as watched:
        for service in SERVICES:
            victim = stack.containers(service)[0]
            restarts = stack.inspected(victim)[0]["RestartCount"]
            begun = failures(watched)
            await asyncio.to_thread(stack.kill, victim)
            await asyncio.to_thread(
                wait_until,
                lambda victim=victim, restarts=restarts: (
                    stack.inspected(victim)[0]["RestartCount"] > restarts and not stack.unhealthy()
                ),
                HEALTHY_SECONDS,
                stack.unhealthy,
            )
            for one in watched:  # those that were refused while Envoy was away have connections to make
                await one.until(models.content, HEALTHY_SECONDS, may_fail=service == "envoy")
            lost[service] = [failure for failure in failures(watched) if failure not in begun]
    under_way = len(watched)
    assert len(lost.pop("gateway")) <= under_way
    away = lost.pop("envoy")  # nobody is there to be called until it is back
    unavailable = r"Client\w+Error|Server\w+Error|UNAVAILABLE|AssertionError: 503"
    assert [failure for failure in away if not re.search(unavailable, failure)] == []
    assert answered(watched)
    assert lost == {service: [] for service in SERVICES if service not in ("gateway", "envoy")}
