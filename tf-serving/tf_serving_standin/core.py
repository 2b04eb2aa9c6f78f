"""The server without its protocols: configuration, version labels, and lookup of servables and states.

Built by the server, used by both edges; knows neither gRPC nor HTTP (model_servers/server_core.cc).
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic

from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from tf_serving_standin.errors import Code, ServingError, failed_precondition, invalid_argument, not_found
from tf_serving_standin.lifecycle import Lifecycle, RetryPolicy, S
from tf_serving_standin.model_config import check_models, check_platforms_kept, monitored_models
from tf_serving_standin.source import FileSystemSource
from tf_serving_standin.states import ServableId, ServableState, State, StateBus, StateMonitor

_log = logging.getLogger(__name__)
_INITIAL_LOAD_THREADS = 4 * (os.cpu_count() or 1)
_ILLEGAL_TRANSITION = (
    "Cannot transition to requested config. It is only legal to transition from one ModelConfigList to another."
)


@dataclass(frozen=True)
class CoreOptions:
    """The flags that steer loading; seconds where a time is meant."""

    file_system_poll_seconds: float
    load_threads: int
    unload_threads: int
    retries: RetryPolicy
    labels_for_unavailable_models: bool


class ServerCore(Generic[S]):
    """Serves what the newest accepted configuration lists."""

    def __init__(self, load: Callable[[ServableId, str], S], options: CoreOptions) -> None:
        self._options = options
        self._bus = StateBus()
        self._monitor = StateMonitor()
        self._bus.attach(self._monitor)
        self._lifecycle: Lifecycle[S] = Lifecycle(
            load, self._bus, options.retries, options.load_threads, options.unload_threads
        )
        self._source = FileSystemSource(options.file_system_poll_seconds, self._lifecycle.aspire)
        self._started = False
        self._stopped = threading.Event()
        self._reloading = threading.Lock()
        self._config = ModelServerConfig()
        self._labels: dict[str, dict[str, int]] = {}

    def stop(self) -> None:
        """End polling and loading; servables that are in use stay usable until the process ends."""
        self._stopped.set()
        self._source.stop()
        self._lifecycle.stop()

    def reload(self, config: ModelServerConfig, abandoned: Callable[[], bool] = lambda: False) -> None:
        """Replace the whole configuration and wait until the models that are new are available or have failed.

        There is no time limit, as in the real server: a new model without a version on disk holds up this call and
        every later one until a version appears. `abandoned` lets a caller that only queues give up.

        Raises INVALID_ARGUMENT or FAILED_PRECONDITION for a config that is refused and UNKNOWN when a new model
        could not be loaded; the config stays in force in the latter case.
        """
        while not self._reloading.acquire(timeout=0.1):
            if abandoned() or self._stopped.is_set():
                raise ServingError(Code.CANCELLED, "The client went away before its config could be looked at")
        try:
            self._reload(config)
        finally:
            self._reloading.release()

    def _reload(self, config: ModelServerConfig) -> None:
        old, new = self._config.WhichOneof("config"), config.WhichOneof("config")
        if old is not None and config != self._config and (old, new) != ("model_config_list", "model_config_list"):
            raise failed_precondition(_ILLEGAL_TRANSITION)
        if new is None:
            _log.info("Taking no action for empty config.")
            return
        if new != "model_config_list":
            raise invalid_argument("ModelServer does not yet support custom model config.")
        models = config.model_config_list.config
        check_models(models)
        check_platforms_kept(self._config.model_config_list.config, models)
        self._config = ModelServerConfig()
        self._config.CopyFrom(config)
        self._labels = {model.name: self._checked_labels(model) for model in models if model.version_labels}
        self._serve(list(models))

    def _serve(self, models: list[ModelConfig]) -> None:
        monitored = monitored_models(models)
        known = self._source.model_names
        new = [model.name for model in monitored if model.name not in known]
        for name in new:
            _log.info("Adding model: %s", name)
        if not self._started:
            self._started = True
            self._source.update(monitored)
            self._lifecycle.start()
            with self._lifecycle.fast_load(_INITIAL_LOAD_THREADS):
                self._source.start()
                self._await(new, self._monitor, "servable(s)")
            return
        # A fresh monitor, because a model that comes back has old states that must not count.
        fresh = StateMonitor()
        self._bus.attach(fresh)
        try:
            self._source.update(monitored)
            self._await(new, fresh, "model(s)")
        finally:
            self._bus.detach(fresh)

    def _await(self, names: list[str], monitor: StateMonitor, noun: str) -> None:
        decided = monitor.wait_until_decided(names, self._stopped.is_set)
        if decided is None:
            raise ServingError(Code.CANCELLED, "The server is shutting down")
        failed = sorted((state for state in decided if state.state is not State.AVAILABLE), key=lambda s: s.id)
        if failed:
            reasons = (f"{{{s.id}{f' due to error: {s.error}' if s.error else ''}}}, " for s in failed)
            text = f"{len(failed)} {noun} did not become available: {{{''.join(reasons)}}}"
            raise ServingError(Code.UNKNOWN, text)

    def _checked_labels(self, model: ModelConfig) -> dict[str, int]:
        existing = self._labels.get(model.name, {})
        for label, version in sorted(model.version_labels.items()):
            if self._options.labels_for_unavailable_models and existing.get(label, version) == version:
                continue
            state = self._monitor.get(ServableId(model.name, version))
            if state is None or state.state is not State.AVAILABLE:
                raise failed_precondition(
                    f"Request to assign label to version {version} of model {model.name}, "
                    "which is not currently available for inference"
                )
        return dict(model.version_labels)

    @contextmanager
    def servable(self, spec: ModelSpec) -> Iterator[tuple[ServableId, S]]:
        """The loaded version that `spec` means; it stays loaded while the context is open.

        Raises INVALID_ARGUMENT for a spec without a name or with an unknown label, NOT_FOUND for what is not loaded.
        """
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        version = None
        if choice == "version":
            version = spec.version.value
        elif choice == "version_label":
            version = self._labels.get(spec.name, {}).get(spec.version_label)
            if version is None:
                raise invalid_argument(f"Unrecognized servable version label: {spec.version_label}")
        with self._lifecycle.servable(spec.name, version) as found:
            yield found

    def states(self, spec: ModelSpec) -> list[ServableState]:
        """The states of the version that `spec` names, or of all versions ever seen, newest first.

        A label is not looked at, as in the real server. Raises NOT_FOUND for what was never seen.
        """
        if spec.HasField("version"):
            state = self._monitor.get(ServableId(spec.name, spec.version.value))
            if state is None:
                raise not_found(f"Could not find version {spec.version.value} of model {spec.name}")
            return [state]
        states = self._monitor.versions(spec.name)
        if not states:
            raise not_found(f"Could not find any versions of model {spec.name}")
        return states
