"""Polls the base paths of the configured models and says which versions should be served.

Owned by the core; tells the lifecycle through one callback and knows nothing of loading
(tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc).
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tf_serving_standin.errors import ServingError, invalid_argument, not_found
from tf_serving_standin.version_policy import ServableVersionPolicy, aspired_versions, missing_specific_versions

_log = logging.getLogger(__name__)

AspiredVersionsCallback = Callable[[str, Mapping[int, str]], None]

_RACY_SECONDS = 2.0
"""File systems may stamp a directory that changes twice within this time only once."""


@dataclass(frozen=True)
class MonitoredModel:
    """A model name, the directory that holds its versions, and which of them to serve."""

    name: str
    base_path: str
    policy: ServableVersionPolicy


@dataclass(frozen=True)
class _Polled:
    """What a poll found for a model; it holds for as long as the directory's `stamp` does, which is None if too new."""

    model: MonitoredModel
    stamp: tuple[int, int] | None
    versions: Mapping[int, str]
    complaints: tuple[str, ...]


class FileSystemSource:
    """Polls every `poll_seconds`; 0 polls once, a negative number never polls."""

    def __init__(self, poll_seconds: float, aspire: AspiredVersionsCallback) -> None:
        self._poll_seconds = poll_seconds
        self._aspire = aspire
        self._lock = threading.Lock()
        self._models: tuple[MonitoredModel, ...] = ()
        self._polled: dict[str, _Polled] = {}
        self._complaint = ""
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def model_names(self) -> frozenset[str]:
        """The names of the models polled now."""
        with self._lock:
            return frozenset(model.name for model in self._models)

    def update(self, models: Sequence[MonitoredModel]) -> None:
        """Replace the models to poll; those no longer listed are torn down at once."""
        with self._lock:
            kept = {model.name for model in models}
            for model in self._models:
                if model.name not in kept:
                    self._polled.pop(model.name, None)
                    self._aspire(model.name, {})
            self._models = tuple(models)
        if self._poll_seconds > 0:
            self._wake.set()

    def start(self) -> None:
        """Begin to poll, in a thread of its own."""
        if self._thread is None and self._poll_seconds >= 0:
            self._thread = threading.Thread(target=self._run, name="file-system-poll", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End polling; returns when the thread has ended, or after two seconds."""
        self._stopped.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=2)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._wake.clear()
            self.poll()
            if self._poll_seconds == 0:
                return
            self._wake.wait(self._poll_seconds)

    def poll(self) -> None:
        """Look once. As in the real server one base path that is missing leaves every model as it is."""
        with self._lock:
            before = self._polled
            try:
                found = {model.name: _poll_model(model, before.get(model.name)) for model in self._models}
            except ServingError as error:
                complaint = f"FileSystemStoragePathSource encountered a filesystem access error: {error.message}"
            else:
                complaint = "; ".join(text for polled in found.values() for text in polled.complaints)
                self._polled = found
                for name, polled in found.items():
                    if name not in before or polled.versions != before[name].versions:
                        self._aspire(name, polled.versions)
        self._complain(complaint)

    def _complain(self, complaint: str) -> None:
        # A poll comes round every second: the same complaint is worth one line, not one each second.
        if complaint and complaint != self._complaint:
            _log.warning(complaint)
        self._complaint = complaint


def _poll_model(model: MonitoredModel, before: _Polled | None) -> _Polled:
    try:
        found = os.stat(model.base_path)
    except OSError:
        reason = not_found(f"{model.base_path} not found")
        raise invalid_argument(
            f"Could not find base path {model.base_path} for servable {model.name} with error {reason}"
        ) from None
    stamp = found.st_mtime_ns, found.st_ino
    if before and before.stamp == stamp and before.model == model:
        return before
    try:
        children = os.listdir(model.base_path)
    except OSError as error:
        raise ServingError(not_found("").code, f"{model.base_path}: {error.strerror}") from error
    versions = aspired_versions(model.policy, model.base_path, children)
    complaints = []
    missing = missing_specific_versions(model.policy, versions)
    if missing:
        complaints.append(f"Versions {missing} of servable {model.name} are asked for, but not in {model.base_path}")
    if not versions:
        complaints.append(
            f"No versions of servable {model.name} found under base path {model.base_path}. "
            "Did you forget to name your leaf directory as a number (eg. '/1/')?"
        )
    settled = found.st_mtime < time.time() - _RACY_SECONDS
    return _Polled(model, stamp if settled else None, versions, tuple(complaints))
