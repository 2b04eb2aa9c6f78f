"""The feature: whatever is done to the files of models under load, no call fails, and none is answered by old files."""

import asyncio
import json
import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from door import Door
from probe_models import SavedModels, archive
from swap_changes import SWAP_SECONDS, Model, at_once, change, torch_content
from swap_load import Call, Clients, Watched, load_on

from portico.local.stack import Stack

CHANGES = 100
READY_SECONDS = 240.0
SEED = 20

pytestmark = pytest.mark.timeout(1500)


class Swapping:
    """A stack with four models under load, two for each server, called by REST and by gRPC; and one that is not."""

    def __init__(self, stack: Stack, clients: Clients, saved_models: SavedModels) -> None:
        self.stack = stack
        self.clients = clients
        self._counter = [0]
        self._saved_models = saved_models
        self.models = [
            self._model("tf-by-rest", clients.tf_rest, saved_models.files),
            self._model("tf-by-grpc", clients.tf_grpc, saved_models.files),
            self._model("torch-by-grpc", clients.torch_grpc, torch_content),
            self._model("torch-by-rest", clients.torch_rest, torch_content),
        ]
        flat = self.models[-1]
        flat.folder, flat.whole, flat.versions = stack.models, "torch-by-rest.mar", {}

    def _model(self, name: str, call: Call, content: Callable[[int], dict[str, bytes]]) -> Model:
        model = Model(self.stack.models / name, Watched(name, call), content, self._counter)
        model.versions[1] = model.next_content()
        model.watched.allow(model.versions[1])
        return model

    async def begin(self) -> None:
        """Puts every model there and waits until it answers."""
        for model in self.models:
            (content,) = model.watched.allowed
            if model.whole:
                (model.folder / model.whole).write_bytes(archive(content))
            else:
                model.folder.mkdir()
                at_once(model.path(1), model.content(content))
        for model in self.models:
            (content,) = model.watched.allowed
            await model.watched.until(content, READY_SECONDS, may_fail=True)

    async def changes(self, count: int, beside: Awaitable[None] | None = None) -> None:
        """Makes `count` changes in all under load, on all models at once, and checks every answer.

        The load lasts until what is done `beside` has ended, too.
        """
        watched = [model.watched for model in self.models]
        async with load_on(watched):
            each = -(-count // len(self.models))
            tasks = [change(model, each, SEED + number) for number, model in enumerate(self.models)]
            await asyncio.gather(*tasks, self._come_and_go(3), *([beside] if beside else []))
        failures = [failure for one in watched for failure in one.failures]
        assert not failures, f"{len(failures)} of {sum(one.answers for one in watched)} calls:\n" + "\n".join(failures)
        done = Counter(kind for model in self.models for kind in model.done)
        assert sum(done.values()) >= count, done
        assert all(one.answers > count for one in watched), [one.answers for one in watched]

    async def _come_and_go(self, times: int) -> None:
        """A model that is dropped, answers, is deleted as a whole, and is then not found."""
        folder = self.stack.models / "comes-and-goes"
        guest = Watched(folder.name, self.clients.tf_rest)
        for content in range(times):
            folder.mkdir()
            at_once(folder / "1", self._saved_models.files(content))
            await guest.until(content, SWAP_SECONDS, may_fail=True)
            shutil.rmtree(folder)
            async with asyncio.timeout(SWAP_SECONDS):
                while await self._status(folder.name) != 404:
                    await asyncio.sleep(0.1)

    async def _status(self, model: str) -> int:
        async with self.clients.http.get(f"/v2/models/{model}") as response:
            return response.status

    def serves_what_is_broken(self) -> bool:
        """Whether some version is served from what was loaded before its files were broken."""
        listed = Door(self.stack.addresses.clients).post("/v2/repository/index").json
        return any(version["state"] == "READY" and version["reason"] for version in listed)

    def rotation(self, cluster: str) -> int:
        """How many replicas Envoy sends calls of a cluster to."""
        found = json.loads((self.stack.scratch / "stage" / "envoy" / f"{cluster}.json").read_text())
        return len(found["resources"][0]["endpoints"][0]["lb_endpoints"])


@asynccontextmanager
async def swapping(scratch: Path, tf_python: Path, replicas: int = 1) -> AsyncIterator[Swapping]:
    """A stack of its own, since it is mistreated."""
    saved_models = await asyncio.to_thread(SavedModels, tf_python, scratch / "probe")
    models = scratch / "models"
    models.mkdir()
    stack = Stack(models, replicas=replicas)
    await asyncio.to_thread(stack.open)
    try:
        async with Clients.open(stack.addresses.clients) as clients:
            one = Swapping(stack, clients, saved_models)
            await one.begin()
            yield one
    except BaseException:
        print(stack.tails(), (stack.scratch / "controller.log").read_text(), sep="\n")
        raise
    finally:
        await asyncio.to_thread(stack.close)


@asynccontextmanager
async def beside(work: asyncio.Task[None]) -> AsyncIterator[None]:
    """Goes on with `work` until the context is left; if it fails, so does the test."""
    try:
        yield
    finally:
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work


def kill(stack: Stack, part: str) -> None:
    pid = stack.pid(part)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


async def test_a_hundred_changes_under_load(tmp_path: Path, tf_python: Path) -> None:
    """Dropped, overwritten, cut off, renamed, deleted, linked, pinned: no call fails, and the right content answers."""
    async with swapping(tmp_path, tf_python) as one:
        await one.changes(CHANGES)


async def test_a_hundred_changes_while_the_controller_is_killed(tmp_path: Path, tf_python: Path) -> None:
    """At random moments: the next one finishes what it finds begun, and clients notice nothing."""
    moments = random.Random(SEED)
    kills = [0]

    async def kill_controllers(stack: Stack) -> None:
        while True:
            await asyncio.sleep(moments.uniform(0.5, 8.0))
            kill(stack, "controller")
            kills[0] += 1
            await asyncio.sleep(moments.uniform(0.0, 2.0))
            if stack.pid("controller") is None:  # sooner than the stack itself would, whose pauses double
                await asyncio.to_thread(stack.start, "controller")

    async with swapping(tmp_path, tf_python) as one, beside(asyncio.create_task(kill_controllers(one.stack))):
        await one.changes(CHANGES)
    assert kills[0] >= 10


async def test_a_hundred_changes_while_replicas_restart(tmp_path: Path, tf_python: Path) -> None:
    """One replica after another of each server is killed: it takes calls again only with all its models."""
    kills = [0]

    async def kill_replicas(one: Swapping) -> None:
        for part, cluster in [
            ("tf-serving", "tf_serving"),
            ("torchserve-2", "torchserve_rest"),
            ("tf-serving-2", "tf_serving"),
            ("torchserve", "torchserve_rest"),
        ]:
            # Of files that were broken after they were loaded, the last replica that has them must not be killed:
            # nobody could have them again.
            while one.rotation(cluster) < 2 or one.serves_what_is_broken():
                await asyncio.sleep(0.2)
            kill(one.stack, part)
            kills[0] += 1
            while one.rotation(cluster) == 2:
                await asyncio.sleep(0.05)

    async with swapping(tmp_path, tf_python, replicas=2) as one:
        await one.changes(CHANGES, kill_replicas(one))
    assert kills[0] >= 4
