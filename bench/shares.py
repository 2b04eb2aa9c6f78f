"""Who takes the CPU that an answer costs: the threads of the processes in front, and the parts of the code that the
event loop runs. Used by `flame_graphs.py`; Linux only.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from machine import TICKS

ENVOY, LOOP, HAND_OVER, GRPC, DOOR, REST = "Envoy", "event loop", "hand-over", "gRPC", "door", "other"
THREADS = (ENVOY, LOOP, HAND_OVER, GRPC, DOOR, REST)
"""Envoy's worker; the thread that runs Python; pyvoy's, which takes what Envoy has to the event loop; those of gRPC's
client; the Envoy in front of the model servers.
"""
_WORKER = "wrk:worker"
_OF_GRPC = ("event_engine", "grpc", "timer_mgr", "lifeguard")

SERVER, OTHERS = "event loop, server", "other"
_PARTS = (
    ("edges", ("portico/edges/", "portico/freshness.py", "portico/meters.py")),
    ("protocols, codecs", ("portico/protocols/", "portico/codecs/", "portico/wire/", "portico/validation.py")),
    ("protocols, codecs", ("portico/inference.py", "google/protobuf/")),
    ("dispatch, sharing", ("portico/dispatch.py", "portico/sharing.py", "portico/flights.py", "portico/calls.py")),
    ("dispatch, sharing", ("portico/cache_key.py", "portico/routing.py")),
    ("Redis", ("portico/caching/", "redis/", "hiredis/")),
    ("model server", ("portico/backends/", "grpc/", "aiohttp/")),
)
PARTS = (*dict.fromkeys(part for part, _ in _PARTS), SERVER, OTHERS)


@dataclass(frozen=True)
class Clock:
    """CPU of threads so far: {(pid, tid): (name, seconds)}."""

    threads: dict[tuple[int, int], tuple[str, float]]

    @classmethod
    def of(cls, pids: Iterable[int]) -> "Clock":
        """Of all threads that these processes have."""
        found = {}
        for pid in pids:
            for task in Path(f"/proc/{pid}/task").iterdir():
                name, _, fields = (task / "stat").read_text().partition("(")[2].rpartition(")")
                ticks = sum(map(int, fields.split()[11:13]))
                found[pid, int(task.name)] = (name, ticks / TICKS)
        return cls(found)

    def since(self, before: "Clock") -> dict[str, float]:
        """Seconds of CPU by role. The first process is the one that is looked into."""
        first = next(iter(self.threads))[0]
        roles: Counter[str] = Counter()
        unnamed: list[float] = []
        for thread, (name, seconds) in self.threads.items():
            took = seconds - before.threads.get(thread, (name, 0.0))[1]
            if thread[0] != first:
                roles[DOOR] += took
            elif name.startswith(_WORKER):
                roles[ENVOY] += took
            elif name.startswith(_OF_GRPC):
                roles[GRPC] += took
            else:
                unnamed.append(took)
        # Threads that Envoy's own has started have its name. Two of them are ever busy, and Python's the busiest.
        busiest = sorted(unnamed, reverse=True) if ENVOY in roles else [0.0, 0.0, *unnamed]
        roles[LOOP], roles[HAND_OVER], roles[REST] = *[*busiest, 0.0, 0.0][:2], sum(busiest[2:])
        return dict(roles)


def by_part(folded: str) -> dict[str, float]:
    """Part of the code → its share of py-spy's samples, by the innermost frame that is in one. What a library does for
    a part is the part's.
    """
    shares: Counter[str] = Counter()
    for stack, count in _samples(folded):
        shares[next((part for frame in reversed(stack) if (part := _part(frame))), SERVER)] += count
    total = sum(shares.values()) or 1
    return {part: shares[part] / total for part in PARTS}


def _part(frame: str) -> str:
    found = next((part for part, places in _PARTS if any(place in frame for place in places)), "")
    return found or (OTHERS if "portico/" in frame else "")


def _samples(folded: str) -> list[tuple[list[str], int]]:
    lines = (line.rpartition(" ") for line in folded.splitlines() if line)
    return [(stack.split(";"), int(count)) for stack, _, count in lines]
