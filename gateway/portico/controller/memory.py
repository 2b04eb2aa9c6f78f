"""What the reconcile loop remembers between rounds, and may forget at any time: what has failed, and what has been
logged. Nothing is served by it.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

FIRST_RETRY, LAST_RETRY = 30.0, 600.0
"""Seconds until a failed load is tried again although its files are the same."""

Key = tuple[str, str]
"""(address of a replica, servable's name)."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Failure:
    reason: str
    until: float
    pause: float


class Failures:
    """What failed where, why, and when to try again: later each time. `first` is in seconds, as is `clock`."""

    def __init__(self, first: float, clock: Callable[[], float]) -> None:
        self._first = first
        self._clock = clock
        self._failures: dict[Key, _Failure] = {}

    def note(self, key: Key, reason: str) -> None:
        """It has failed, once more perhaps."""
        before = self._failures.get(key)
        pause = min(before.pause * 2, LAST_RETRY) if before else self._first
        self._failures[key] = _Failure(reason, self._clock() + pause, pause)

    def clear(self, key: Key) -> None:
        """It has succeeded."""
        self._failures.pop(key, None)

    def clear_replica(self, address: str) -> None:
        """The replica is gone: when it is back it may be another one, that does not fail."""
        self._failures = {key: failure for key, failure in self._failures.items() if key[0] != address}

    def clear_name(self, name: str) -> None:
        """The files came anew."""
        self._failures = {key: failure for key, failure in self._failures.items() if key[1] != name}

    def forget_old(self) -> None:
        """Drops what could have been tried again long ago."""
        old = self._clock() - LAST_RETRY
        self._failures = {key: failure for key, failure in self._failures.items() if failure.until > old}

    def waits(self, key: Key) -> bool:
        """Whether it is too early to try again."""
        failure = self._failures.get(key)
        return failure is not None and self._clock() < failure.until

    def at(self, address: str) -> dict[str, str]:
        """Servable's name → reason, of what waits at one replica."""
        now = self._clock()
        return {
            name: failure.reason
            for (where, name), failure in self._failures.items()
            if where == address and now < failure.until
        }


class Troubles:
    """Logs the trouble that a part of the stack has when it begins, changes or ends, and not in each round."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def tell(self, part: str, text: str) -> None:
        """What `part` suffers from now."""
        if self._texts.get(part) != text:
            _log.warning("%s", text)
            self._texts[part] = text

    def end(self, part: str) -> None:
        """`part` is well."""
        if self._texts.pop(part, None) is not None:
            _log.info("%s: well again", part)
