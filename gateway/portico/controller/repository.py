"""The model repository as the reconcile loop sees it: scanned, settled, judged. Reading files goes on beside the loop,
and each file is read once per change.
"""

import asyncio
import math
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from portico.controller.file_events import Changes
from portico.controller.inventory import FileStamp, FoundVersion, Inventory, Listing, ModelFiles, VersionFiles
from portico.controller.judge import JudgedPolicy, Judgement, judge, judge_policy, named
from portico.controller.policy import Policy
from portico.controller.recheck import Recheck
from portico.controller.scan import scan
from portico.controller.servable import LoadOptions, Servable, version_key
from portico.controller.settle import SeenModel, SeenVersion, Settler
from portico.routing import Server

READERS = 2
"""Threads that judge files; and as many again for large ones, so that these hold nothing up."""
LARGE = 64 << 20
"""Bytes."""
PATIENCE = 0.2
"""Seconds that a look waits for files that it begins to read; what takes longer is in a later look."""
BUSY = 5
"""How many times as long everything may go without being looked at while something is being swapped."""

_Key = tuple[str, tuple[FileStamp, ...]]
_Result = TypeVar("_Result")


class _Judging(NamedTuple):
    """A judgement that is made; `stop` ends it before it is."""

    future: asyncio.Future[Judgement]
    stop: threading.Event

    def give_up(self) -> None:
        self.future.cancel()
        self.stop.set()


@dataclass(slots=True)
class _Model:
    """What is known of one model. `policy` is the last one that could be read, None until one could; the default where
    none lies. With `final`, `files` holds until something else is seen.
    """

    at_start: bool
    seen: SeenModel | None = None
    policy: Policy | None = None
    warmup: str = ""
    warmup_stamp: tuple[int, ...] = ()
    warmup_since: float = 0.0
    judging: dict[_Key, _Judging] = field(default_factory=dict)
    reading: tuple[_Key, asyncio.Future[JudgedPolicy]] | None = None
    judged: JudgedPolicy | None = None
    files: ModelFiles | None = None
    final: bool = False


class Repository:
    """Looks at a folder again and again.

    `settle` is in seconds. `wake` is called when a judgement has come that a look did not wait for. `changes` tells
    what has happened since it was last asked; if nothing was lost, it is taken at its word for `interval` seconds.
    """

    def __init__(
        self,
        root: Path,
        settle: float,
        wake: Callable[[], None],
        changes: Callable[[], Changes] = lambda: Changes(lost=True),
        interval: float = 1.0,
    ) -> None:
        self._root = root
        self._settler = Settler(settle)
        self._wake = wake
        self._changes = changes
        self._interval = interval
        self._saw_all = -math.inf
        self._listing = Listing()
        self._recheck = Recheck()
        self._models: dict[str, _Model] = {}
        self._looked = False
        self._begun: list[asyncio.Future[Any]] = []
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="judge")
        self._large = ThreadPoolExecutor(READERS, thread_name_prefix="judge-large")

    @property
    def next_look(self) -> float | None:
        """Seconds from now until something may have settled although no file changes; None if nothing will."""
        due = self._settler.due
        return None if due is None else max(0.0, due - time.monotonic())

    async def look(self, loading: Collection[str] = ()) -> Inventory:
        """What should be served now; `loading` are models whose files must not be taken to be as they were. Raises
        OSError if the repository itself cannot be read.
        """
        # Asked before the scan begins: what is moved in while it goes on may be seen half replaced.
        changes, started = self._changes(), time.monotonic()
        suspects = self._suspects(changes, loading, started)
        # Should the scan fail, what was told of is lost.
        saw_all, self._saw_all = self._saw_all, -math.inf
        self._listing = await asyncio.to_thread(scan, self._root, self._listing, self._recheck, suspects)
        self._saw_all = started if suspects is None else saw_all
        seen = self._settler.observe(self._listing, started, time.time(), changes.arrived)
        changed = self._follow(seen)
        changed += [
            name for name, model in self._models.items() if model.warmup and self._warmup_is_new(model, started)
        ]
        await self._be_patient()
        for name in dict.fromkeys(changed):
            model = self._models[name]
            model.files, model.final = self._files(seen[name], model)
        self._looked = True
        return Inventory({name: files for name in seen if (files := self._models[name].files)})

    def close(self) -> None:
        """Stops reading."""
        for judging in (judging for model in self._models.values() for judging in model.judging.values()):
            judging.give_up()
        for pool in (self._readers, self._large):
            pool.shutdown(wait=False, cancel_futures=True)

    def _suspects(self, changes: Changes, loading: Collection[str], now: float) -> set[str] | None:
        """The models that may have changed, None for all. A file that is being written tells of nothing before it is
        closed, so what moves is among them.
        """
        moving = {name for name, model in self._models.items() if not model.final} | self._settler.restless
        suspects = moving.union(changes.disturbed, loading)
        patience = self._interval * (BUSY if suspects else 1)
        return None if changes.lost or now - self._saw_all >= patience else suspects

    def _follow(self, seen: Mapping[str, SeenModel]) -> list[str]:
        """Begins to read what is new and settled, and forgets what is gone. The names that may have changed."""
        for name in self._models.keys() - seen.keys():
            self._judge(self._models.pop(name), SeenModel(name))
        changed = []
        for name, now in seen.items():
            model = self._models.get(name)
            if model is None:
                model = self._models[name] = _Model(at_start=not self._looked)
            if model.seen is not now or not model.final:
                model.seen = now
                self._judge(model, now)
                changed.append(name)
        return changed

    def _warmup_is_new(self, model: _Model, now: float) -> bool:
        """Whether the file of warm-up requests was edited, which no scan looks at: what failed on it is tried again."""
        before = model.warmup_stamp
        try:
            found = os.stat(self._root / model.warmup)
            model.warmup_stamp = found.st_size, found.st_mtime_ns, found.st_ino
        except OSError:
            model.warmup_stamp = ()
        if model.warmup_stamp == before:
            return False
        model.warmup_since = now if before else 0.0
        return True

    def _judge(self, model: _Model, seen: SeenModel) -> None:
        before, model.judging = model.judging, {}
        for version in seen.versions:
            found = version.found
            if version.settled and not found.problem:
                key = (found.path, found.files)
                model.judging[key] = before.pop(key) if key in before else self._begin_judging(found)
        for judging in before.values():
            judging.give_up()
        policy = seen.policy
        if policy is None or policy.problem or not seen.policy_settled:
            return
        key = (policy.path, policy.files)
        known = model.reading[1] if model.reading and model.reading[0] == key else None
        if known is None:
            model.judged = None
        elif known.done():
            model.judged = known.result()
        if known is None or (known.done() and known.result().passing):
            model.reading = key, self._begin(policy.files, partial(judge_policy, self._root, policy))

    def _begin_judging(self, found: FoundVersion) -> _Judging:
        stop = threading.Event()
        return _Judging(self._begin(found.files, partial(judge, self._root, found, stop.is_set)), stop)

    def _begin(self, files: Iterable[FileStamp], read: Callable[[], _Result]) -> asyncio.Future[_Result]:
        pool = self._large if sum(size for _, size, *_ in files) > LARGE else self._readers
        future = asyncio.get_running_loop().run_in_executor(pool, read)
        self._begun.append(future)
        return future

    async def _be_patient(self) -> None:
        """Waits a little for what this look began to read."""
        begun, self._begun = self._begun, []
        late = (await asyncio.wait(begun, timeout=PATIENCE))[1] if begun else ()
        for future in late:
            future.add_done_callback(lambda _: self._wake())

    def _files(self, seen: SeenModel, model: _Model) -> tuple[ModelFiles, bool]:
        """What the plan is told of a model, and whether that holds until something else is seen."""
        servers = {version.found.server for version in seen.versions if version.found.path}
        server = servers.pop() if len(servers) == 1 else None
        problem, final = self._read_policy(seen, model, server)
        versions = [self._version(seen.name, version, model, bool(problem)) for version in seen.versions]
        versions.sort(key=lambda version: version_key(version.version))
        final = final and all(judging.future.done() for judging in model.judging.values())
        problem, policy = seen.problem or problem, model.policy or Policy()
        found = ModelFiles(seen.name, server, tuple(versions), problem, policy, seen.since, seen.settled_at)
        return found, final

    def _read_policy(self, seen: SeenModel, model: _Model, server: Server | None) -> tuple[str, bool]:
        """Puts a policy that was read in force; what is wrong with it, and whether that is known for good."""
        found = seen.policy
        if found is None:
            model.policy, model.warmup = Policy(), ""
            return "", True
        name = os.path.basename(found.path)
        if seen.policy_settled and found.problem:
            return named(name, found.problem), True
        if model.reading and model.reading[1].done():
            model.judged = model.reading[1].result()
        if not seen.policy_settled or model.judged is None:
            # What serves already may have had a policy: a controller that starts must not take that away.
            lost = model.at_start and model.policy is None
            return (named(name, "is still changing") if lost else ""), False
        judged = model.judged
        if judged.policy is None:
            return judged.problem, not judged.passing
        unfit = judged.policy.unfit(server) if server else ""
        if not unfit:
            model.policy, model.warmup = judged.policy, judged.warmup
        return unfit and named(name, unfit), True

    def _version(self, name: str, seen: SeenVersion, model: _Model, troubled: bool) -> VersionFiles:
        found, since, settled = seen.found, max(seen.since, model.warmup_since), seen.settled_at
        if seen.settled and found.problem:
            return VersionFiles(found.version, None, found.problem, since, settled)
        judging = model.judging.get((found.path, found.files))
        if not seen.settled or judging is None or not judging.future.done():
            return VersionFiles(found.version, since=since, settled=settled)
        judged = judging.future.result()
        if judged.problem:
            return VersionFiles(judged.version, None, judged.problem, since, settled, judged.ended)
        if model.policy is None and not troubled:
            return VersionFiles(judged.version, None, "", since, settled, judged.ended)
        # With a policy that cannot be read nothing is loaded anew; what served without options is found again.
        policy = model.policy or Policy()
        options = policy.options if found.server is Server.TORCHSERVE else LoadOptions()
        servable = Servable.of_files(
            name,
            judged.version,
            found.server,
            judged.served,
            found.path,
            judged.fingerprint,
            options,
            model.warmup,
            policy.calls,
        )
        return VersionFiles(judged.version, servable, "", since, settled, judged.ended)
