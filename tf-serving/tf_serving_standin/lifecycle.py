"""Loads and unloads model versions so that the aspired ones are served, the new one before the old one goes.

Fed by the source, asked by the core for servables; the loading itself is a function it is given
(tensorflow_serving/core/aspired_versions_manager.cc, basic_manager.cc, availability_preserving_policy.cc).
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from tf_serving_standin.errors import Code, ServingError, from_exception, not_found
from tf_serving_standin.harness import Action, Harness, Phase, next_action
from tf_serving_standin.states import ServableId, ServableState, State, StateBus

_log = logging.getLogger(__name__)


class Closable(Protocol):
    """What can be loaded: something that can be closed again."""

    def close(self) -> None:
        """Free what the servable holds; no call is under way and none will come."""


S = TypeVar("S", bound=Closable)


@dataclass(frozen=True)
class RetryPolicy:
    """How often, and with what pause in seconds, a failed load is tried again."""

    max_retries: int
    interval_seconds: float


class Lifecycle(Generic[S]):
    """Keeps one harness per managed version and drives it in a thread of its own."""

    def __init__(
        self,
        load: Callable[[ServableId, str], S],
        bus: StateBus,
        retries: RetryPolicy,
        load_threads: int,
        unload_threads: int,
    ) -> None:
        self._load = load
        self._bus = bus
        self._retries = retries
        self._changed = threading.Condition(threading.RLock())
        self._harnesses: dict[str, dict[int, Harness[S]]] = {}
        self._pending: dict[str, Mapping[int, str]] = {}
        self._moving: set[str] = set()
        self._stopped = threading.Event()
        self._loads = _executor(load_threads, "load")
        self._unloads = _executor(unload_threads, "unload")
        self._thread = threading.Thread(target=self._run, name="lifecycle", daemon=True)

    def start(self) -> None:
        """Begin to act on what is aspired."""
        self._thread.start()

    def stop(self) -> None:
        """Take up no further work; a load under way is left behind after two seconds."""
        self._stopped.set()
        with self._changed:
            for harness in self._all():
                harness.cancelled.set()
            self._changed.notify_all()
        self._thread.join(timeout=2)
        for executor in (self._loads, self._unloads):
            if executor is not None:
                executor.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def fast_load(self, threads: int) -> Iterator[None]:
        """Load with `threads` threads meanwhile, as the real server does for its first models."""
        pool = ThreadPoolExecutor(threads, thread_name_prefix="initial-load")
        with self._changed:
            usual, self._loads = self._loads, pool
        try:
            yield
        finally:
            with self._changed:
                self._loads = usual
            pool.shutdown(wait=False)

    def aspire(self, name: str, versions: Mapping[int, str]) -> None:
        """From now on `versions` (version → path) of model `name` should be served, and no others."""
        with self._changed:
            self._pending[name] = versions
            self._changed.notify_all()

    @contextmanager
    def servable(self, name: str, version: int | None) -> Iterator[tuple[ServableId, S]]:
        """The loaded version asked for, or the newest; it stays loaded for as long as the context is open.

        Raises NOT_FOUND, with TF Serving's text, when no such version is loaded.
        """
        with self._changed:
            harness, servable = self._find_ready(name, version)
            harness.users += 1
        try:
            yield harness.id, servable
        finally:
            with self._changed:
                harness.users -= 1
                if harness.users == 0 and harness.phase is Phase.QUIESCING:
                    self._changed.notify_all()

    def _find_ready(self, name: str, version: int | None) -> tuple[Harness[S], S]:
        ready = [
            (harness, harness.servable)
            for harness in self._harnesses.get(name, {}).values()
            if harness.phase is Phase.READY and harness.servable is not None and version in (None, harness.id.version)
        ]
        if not ready:
            wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise not_found(f"Servable not found for request: {wanted}")
        return max(ready, key=lambda found: found[0].id.version)

    def _run(self) -> None:
        while not self._stopped.is_set():
            with self._changed:
                self._forget_finished()
                self._take_pending()
                self._forget_finished()
                action, harness = next_action(self._harnesses[name].values() for name in self._moving)
                if harness is None:
                    self._moving.clear()  # there is nothing to do for them until something happens to them
                    self._changed.wait(0.1)
                    continue
                harness.phase = Phase.LOADING if action is Action.LOAD else Phase.QUIESCING
                executor = self._loads if action is Action.LOAD else self._unloads
            work = self._load_harness if action is Action.LOAD else self._unload_harness
            if executor is None:
                work(harness)
            else:
                executor.submit(work, harness)

    def _forget_finished(self) -> None:
        done = (Phase.NEW, Phase.DISABLED, Phase.ERROR)
        moving = (harness for name in self._moving for harness in self._harnesses[name].values())
        for harness in [h for h in moving if not h.aspired and h.phase in done]:
            del self._harnesses[harness.id.name][harness.id.version]
            if not self._harnesses[harness.id.name]:
                del self._harnesses[harness.id.name]
                self._moving.remove(harness.id.name)

    def _all(self) -> Iterator[Harness[S]]:
        return (harness for versions in self._harnesses.values() for harness in versions.values())

    def _take_pending(self) -> None:
        for name, versions in list(self._pending.items()):
            managed = self._harnesses.get(name, {})
            # A version that is on its way out must be gone before it can be aspired again.
            if any(not h.aspired and h.id.version in versions for h in managed.values()):
                continue
            del self._pending[name]
            if managed or versions:
                self._moving.add(name)
            for harness in managed.values():
                if harness.id.version not in versions:
                    harness.aspired = False
                    harness.cancelled.set()
            for version, path in versions.items():
                if version not in managed:
                    harness = Harness(ServableId(name, version), path)
                    self._harnesses.setdefault(name, {})[version] = harness
                    self._publish(harness.id, State.START)

    def _load_harness(self, harness: Harness[S]) -> None:
        self._publish(harness.id, State.LOADING)
        servable, error = self._load_with_retries(harness)
        if servable is not None and harness.cancelled.is_set():
            servable.close()
            servable, error = None, ServingError(Code.CANCELLED, "Loading of servable cancelled")
        with self._changed:
            harness.servable = servable
            harness.phase = Phase.ERROR if servable is None else Phase.READY
            self._moving.add(harness.id.name)
            self._changed.notify_all()
        self._publish(harness.id, State.END if servable is None else State.AVAILABLE, error)

    def _load_with_retries(self, harness: Harness[S]) -> tuple[S | None, ServingError | None]:
        attempt = 0
        while True:
            try:
                return self._load(harness.id, harness.path), None
            except Exception as caught:  # a model can fail to load in any way; the state carries the reason
                error = from_exception(caught)
            _log.error("Loading servable: %s failed: %s", harness.id, error)
            if attempt >= self._retries.max_retries or harness.cancelled.wait(max(0.0, self._retries.interval_seconds)):
                return None, error
            attempt += 1
            _log.info("Retrying of Loading servable: %s retry: %d", harness.id, attempt)

    def _unload_harness(self, harness: Harness[S]) -> None:
        self._publish(harness.id, State.UNLOADING)
        with self._changed:
            while harness.users and not self._stopped.is_set():
                self._changed.wait(0.1)
            servable, harness.servable = harness.servable, None
        if servable is not None and not self._stopped.is_set():
            servable.close()
        with self._changed:
            harness.phase = Phase.DISABLED
            self._moving.add(harness.id.name)
            self._changed.notify_all()
        self._publish(harness.id, State.END)

    def _publish(self, servable_id: ServableId, state: State, error: ServingError | None = None) -> None:
        _log.info("Servable %s: %s%s", servable_id, state.name, "" if error is None else f" ({error})")
        self._bus.publish(ServableState(servable_id, state, error))


def _executor(threads: int, name: str) -> ThreadPoolExecutor | None:
    return ThreadPoolExecutor(threads, thread_name_prefix=name) if threads > 0 else None
