"""When a loaded servable that no route leads to may be unloaded: when every gateway has the table that says so, and no
call under way uses it any more. Called by the reconcile loop in each round; it remembers what it may forget.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from portico.acknowledgements import Acknowledgement

GRACE = 1.0
"""Seconds that a servable stays loaded at least: between resolving its route and calling it, a call is in no list."""
SILENCE = 60.0
"""Seconds without a sign of life after which a gateway counts as gone; its calls may go on while it cannot tell."""


@dataclass(slots=True)
class _Gateway:
    said: Acknowledgement
    since: float


@dataclass(frozen=True, slots=True)
class _Unrouted:
    revision: int
    since: float


class Drain:
    """`grace` is in seconds, as is `silence`, and `now` in what follows (monotonic)."""

    def __init__(self, grace: float = GRACE, silence: float = SILENCE) -> None:
        self._grace = grace
        self._silence = silence
        self._gateways: dict[str, _Gateway] = {}
        self._unrouted: dict[str, _Unrouted] = {}

    def hear(self, gateways: Mapping[str, Acknowledgement], now: float) -> list[str]:
        """Takes note of what the gateways say; returns those that have said nothing new for too long."""
        for name, said in gateways.items():
            known = self._gateways.get(name)
            if known is None or known.said != said:
                self._gateways[name] = _Gateway(said, now)
        self._gateways = {name: known for name, known in self._gateways.items() if name in gateways}
        return [name for name, known in self._gateways.items() if now - known.since >= self._silence]

    def drained(self, idle: Collection[str], revision: int, now: float) -> set[str]:
        """Which of the servables in `idle`, to which the table of `revision` does not route, may be unloaded."""
        self._unrouted = {name: self._unrouted.get(name, _Unrouted(revision, now)) for name in idle}
        return {name for name, unrouted in self._unrouted.items() if self._is_drained(name, unrouted, now)}

    def next(self, now: float) -> float | None:
        """Seconds until some grace is over, None if none is running."""
        left = [unrouted.since + self._grace - now for unrouted in self._unrouted.values()]
        return min((seconds for seconds in left if seconds > 0), default=None)

    def _is_drained(self, name: str, unrouted: _Unrouted, now: float) -> bool:
        if now - unrouted.since < self._grace:
            return False
        return all(
            gateway.said.revision >= unrouted.revision and name not in gateway.said.using
            for gateway in self._gateways.values()
        )
