"""The model repository as the reconcile loop sees it: scanned, settled, judged. Reading large files goes on beside the
loop, and each file is read once per change.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from portico.controller.archive import archive_version
from portico.controller.fingerprint import fingerprint
from portico.controller.inventory import FileStamp, FoundVersion, Inventory, ModelFiles, VersionFiles
from portico.controller.saved_model import check_saved_model
from portico.controller.scan import Rejected, reason, scan
from portico.controller.servable import Servable, version_key
from portico.controller.settle import SeenModel, SeenVersion, Settler
from portico.routing import Server

READERS = 2
"""Threads that judge files."""
PATIENCE = 0.2
"""Seconds that one look waits for files to be judged; what takes longer is in a later look."""

_Key = tuple[str, str, tuple[FileStamp, ...]]

_log = logging.getLogger(__name__)


def judge(root: Path, model: str, found: FoundVersion) -> VersionFiles:
    """Opens the files of one version. Blocks; whatever is wrong with them becomes the version's problem."""
    path = root / found.path
    try:
        if found.server is Server.TF_SERVING:
            check_saved_model(found.files)
            served = found.version
        else:
            served = archive_version(path)
        digest = fingerprint(path, found.files)
    except (OSError, Rejected) as error:
        return VersionFiles(found.version, problem=reason(error))
    except Exception as error:
        # Files are untrusted, and the libraries that read them raise what they like.
        _log.exception("%s cannot be judged", found.path)
        return VersionFiles(found.version, problem=f"its files are damaged: {type(error).__name__}")
    version = found.version or served
    return VersionFiles(version, Servable.of_files(model, version, found.server, served, found.path, digest))


class Repository:
    """Looks at a folder again and again. `wake` is called when a judgement has come that a look did not wait for."""

    def __init__(self, root: Path, settle: float, wake: Callable[[], None]) -> None:
        self._root = root
        self._settler = Settler(settle)
        self._wake = wake
        self._judged: dict[_Key, asyncio.Future[VersionFiles]] = {}
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="judge")

    async def look(self) -> Inventory:
        """What should be served now. Raises OSError if the repository itself cannot be read."""
        listing = await asyncio.to_thread(scan, self._root)
        settled = self._settler.observe(listing, time.monotonic(), time.time())
        wanted = self._start_judging(settled.values())
        running = [future for future in wanted.values() if not future.done()]
        if running:
            await asyncio.wait(running, timeout=PATIENCE)
        for future in running:
            if not future.done():
                future.add_done_callback(lambda _: self._wake())
        return Inventory({name: self._files(model) for name, model in settled.items()})

    def close(self) -> None:
        """Stops reading; a file that is being read is read to its end."""
        self._readers.shutdown(wait=False, cancel_futures=True)

    def _start_judging(self, models: Iterable[SeenModel]) -> dict[_Key, asyncio.Future[VersionFiles]]:
        loop = asyncio.get_running_loop()
        wanted = {}
        for model in models:
            for seen in model.versions:
                found = seen.found
                if seen.settled and not found.problem:
                    key = (model.name, found.path, found.files)
                    wanted[key] = self._judged.get(key) or loop.run_in_executor(
                        self._readers, judge, self._root, model.name, found
                    )
        for key in self._judged.keys() - wanted.keys():
            self._judged[key].cancel()
        self._judged = wanted
        return wanted

    def _files(self, model: SeenModel) -> ModelFiles:
        versions = sorted(
            (self._version(model.name, seen) for seen in model.versions),
            key=lambda version: version_key(version.version),
        )
        servers = {seen.found.server for seen in model.versions if seen.found.path}
        return ModelFiles(model.name, servers.pop() if len(servers) == 1 else None, tuple(versions), model.problem)

    def _version(self, model: str, seen: SeenVersion) -> VersionFiles:
        found = seen.found
        if seen.settled and found.problem:
            return VersionFiles(found.version, problem=found.problem, since=seen.since)
        future = self._judged.get((model, found.path, found.files)) if seen.settled else None
        if future is None or not future.done():
            return VersionFiles(found.version, since=seen.since)
        return replace(future.result(), since=seen.since)
