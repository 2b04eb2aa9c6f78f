"""Polls the base paths of the configured models and says which versions should be served.

Owned by the core; tells the lifecycle through one callback and knows nothing of loading
(tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc).
"""

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tf_serving_standin.errors import ServingError, invalid_argument, not_found
from tf_serving_standin.version_policy import ServableVersionPolicy, aspired_versions, missing_specific_versions

_log = logging.getLogger(__name__)

AspiredVersionsCallback = Callable[[str, Mapping[int, str]], None]


@dataclass(frozen=True)
class MonitoredModel:
    """A model name, the directory that holds its versions, and which of them to serve."""

    name: str
    base_path: str
    policy: ServableVersionPolicy


class FileSystemSource:
    """Polls every `poll_seconds`; 0 polls once, a negative number never polls."""

    def __init__(self, poll_seconds: float, aspire: AspiredVersionsCallback) -> None:
        self._poll_seconds = poll_seconds
        self._aspire = aspire
        self._lock = threading.Lock()
        self._models: tuple[MonitoredModel, ...] = ()
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
            complaints: list[str] = []
            try:
                found = {model.name: _poll_model(model, complaints) for model in self._models}
            except ServingError as error:
                complaints.append(f"FileSystemStoragePathSource encountered a filesystem access error: {error.message}")
                found = {}
            for name, versions in found.items():
                self._aspire(name, versions)
        self._complain("; ".join(complaints))

    def _complain(self, complaint: str) -> None:
        # A poll comes round every second: the same complaint is worth one line, not one each second.
        if complaint and complaint != self._complaint:
            _log.warning(complaint)
        self._complaint = complaint


def _poll_model(model: MonitoredModel, complaints: list[str]) -> dict[int, str]:
    if not os.path.exists(model.base_path):
        reason = not_found(f"{model.base_path} not found")
        raise invalid_argument(
            f"Could not find base path {model.base_path} for servable {model.name} with error {reason}"
        )
    try:
        children = os.listdir(model.base_path)
    except OSError as error:
        raise ServingError(not_found("").code, f"{model.base_path}: {error.strerror}") from error
    versions = aspired_versions(model.policy, model.base_path, children)
    missing = missing_specific_versions(model.policy, versions)
    if missing:
        complaints.append(f"Versions {missing} of servable {model.name} are asked for, but not in {model.base_path}")
    if not versions:
        complaints.append(
            f"No versions of servable {model.name} found under base path {model.base_path}. "
            "Did you forget to name your leaf directory as a number (eg. '/1/')?"
        )
    return versions
