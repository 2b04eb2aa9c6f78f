"""The lifecycle states of model versions, as GetModelStatus reports them, and waiting for them.

Written by the lifecycle, read by the core and the status call; knows neither files nor TensorFlow.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum

from tf_serving_standin.errors import ServingError


class State(IntEnum):
    """The numbers of ModelVersionStatus.State in tensorflow_serving/apis/get_model_status.proto."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True, order=True)
class ServableId:
    """One version of one model."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{{name: {self.name} version: {self.version}}}"


@dataclass(frozen=True)
class ServableState:
    """The newest state of a servable; `error` says why it ended, None when it is healthy."""

    id: ServableId
    state: State
    error: ServingError | None = None


class StateMonitor:
    """The newest state of every servable it heard of, also after it ended (core/servable_state_monitor.cc)."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._states: dict[str, dict[int, ServableState]] = {}

    def record(self, state: ServableState) -> None:
        """Take a state change and wake whoever waits for one."""
        with self._changed:
            self._states.setdefault(state.id.name, {})[state.id.version] = state
            self._changed.notify_all()

    def get(self, servable: ServableId) -> ServableState | None:
        """The newest state of one version, None when it was never heard of."""
        with self._changed:
            return self._states.get(servable.name, {}).get(servable.version)

    def versions(self, name: str) -> list[ServableState]:
        """The states of all versions of a model, newest version first."""
        with self._changed:
            return self._versions(name)

    def _versions(self, name: str) -> list[ServableState]:
        return sorted(self._states.get(name, {}).values(), key=lambda state: state.id, reverse=True)

    def wait_until_decided(self, names: Iterable[str], give_up: Callable[[], bool]) -> list[ServableState] | None:
        """Wait until each model has a version that is available or ended; return the deciding versions.

        Like the real server this has no timeout of its own; `give_up` is asked several times a second, and None is
        returned once it says so.
        """
        waiting = list(names)
        with self._changed:
            while not give_up():
                decided = [self._deciding(name) for name in waiting]
                if all(decided):
                    return [state for state in decided if state is not None]
                self._changed.wait(0.1)
        return None

    def _deciding(self, name: str) -> ServableState | None:
        final = (State.AVAILABLE, State.END)
        return next((state for state in self._versions(name) if state.state in final), None)


class StateBus:
    """Hands every state change to every monitor that is attached."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._monitors: list[StateMonitor] = []

    def attach(self, monitor: StateMonitor) -> None:
        """From now on `monitor` hears of every change."""
        with self._lock:
            self._monitors.append(monitor)

    def detach(self, monitor: StateMonitor) -> None:
        """`monitor` hears of no further change."""
        with self._lock:
            self._monitors.remove(monitor)

    def publish(self, state: ServableState) -> None:
        """Tell all attached monitors."""
        with self._lock:
            for monitor in self._monitors:
                monitor.record(state)
