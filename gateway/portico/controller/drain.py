"""When a loaded servable that no route leads to may be unloaded: when every gateway has the table that says so, and no
call under way uses it any more. Called by the reconcile loop in each round; it remembers what it may forget.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from portico.acknowledgements import GOODBYE, Acknowledgement

GRACE = 1.0
"""Seconds that a servable stays loaded once nobody uses it: between its route and its model, a call is in no list."""
LISTEN = 5.0
"""Seconds that a controller listens before it believes to have heard every gateway: since it began, or since Redis was
away, which may have lost what they said."""
SILENCE = 60.0
"""Seconds without a sign of life after which a gateway counts as gone; its calls may go on while it cannot tell."""


@dataclass(slots=True)
class _Gateway:
    said: Acknowledgement
    since: float


@dataclass(slots=True)
class _Unrouted:
    revision: int
    since: float


class Drain:
    """`grace`, `silence` and `listen` are in seconds, as is `now` in what follows (monotonic)."""

    def __init__(self, grace: float = GRACE, silence: float = SILENCE, listen: float = LISTEN) -> None:
        self._grace = grace
        self._silence = silence
        self._listen = listen
        self._heard: float | None = None
        self._deaf_until = 0.0
        self._gateways: dict[str, _Gateway] = {}
        self._unrouted: dict[str, _Unrouted] = {}

    def hear(self, gateways: Mapping[str, Acknowledgement], now: float) -> list[str]:
        """Takes note of what the gateways say; returns those that have said nothing new for too long.

        Who has said goodbye is forgotten at once.
        """
        if self._heard is None or now - self._heard > self._listen:
            self._deaf_until = now + self._listen
            for known in self._gateways.values():
                known.since = now
        self._heard = now
        for name, said in gateways.items():
            if said == GOODBYE:
                self._gateways.pop(name, None)
                continue
            before = self._gateways.get(name)
            if before is None or before.said != said:
                self._gateways[name] = _Gateway(said, now)
        # One that has vanished without a word may have been lost by Redis.
        silent = [name for name, known in self._gateways.items() if now - known.since >= self._silence]
        for name in silent:
            del self._gateways[name]
        return silent

    def drained(self, idle: Collection[str], revision: int, now: float) -> set[str]:
        """Which of the servables in `idle`, to which the table of `revision` does not route, may be unloaded."""
        self._unrouted = {name: self._unrouted.get(name, _Unrouted(revision, now)) for name in idle}
        drained = set()
        for name, unrouted in self._unrouted.items():
            if now < self._deaf_until or self._is_used(name, unrouted.revision):
                unrouted.since = now
            elif now - unrouted.since >= self._grace:
                drained.add(name)
        return drained

    def next(self, now: float) -> float | None:
        """Seconds until some grace is over, None if none is running."""
        left = [unrouted.since + self._grace - now for unrouted in self._unrouted.values()]
        return min((seconds for seconds in left if seconds > 0), default=None)

    def _is_used(self, name: str, revision: int) -> bool:
        """Whether some gateway may route calls there still, or has one under way."""
        said = (gateway.said for gateway in self._gateways.values())
        return any(one.revision < revision or name in one.using for one in said)
