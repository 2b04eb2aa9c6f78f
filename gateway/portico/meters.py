"""What Prometheus is told of the cache. The names are those of docs/metrics.md."""

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

from portico.errors import NotCached, PorticoError
from portico.freshness import CacheStatus

errors = Counter("portico_cache_errors", "What went wrong with Redis; no request fails of it.", ["kind"])
memory_bytes = Gauge("portico_cache_memory_bytes", "Bytes of answers in the gateway's own memory.")
memory_entries = Gauge("portico_cache_memory_entries", "Answers in the gateway's own memory.")
evictions = Counter("portico_cache_memory_evictions", "Answers that made room for others in the gateway's own memory.")
_answers = Counter(
    "portico_cache_answers",
    "Answers to calls of a model: from the gateway's memory, from Redis, by the model, by another's call of the model, "
    "and past the cache.",
    ["model", "result"],
)
_seconds = Histogram(
    "portico_request_seconds",
    "Seconds from a decoded request to its answer, for those that the gateway's memory did not answer.",
    ["model", "result"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
_RESULTS = {status: status.value.lower() for status in CacheStatus} | {CacheStatus.HIT: "hit_redis"}
_FROM_MEMORY = "hit_memory"


_failures = Counter("portico_request_errors", "Calls of a model that ended in an error.", ["model", "error"])
_stored = Counter("portico_cache_stored_bytes", "Bytes of answers that were stored.", ["model"])


class PrometheusMeter:
    """Implements `ports.Meter`. Label look-ups take longer than counting, so that each is done once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, CacheStatus], tuple[Counter, Histogram]] = {}
        self._remembered: dict[str, Counter] = {}

    def answered(self, model: str, status: CacheStatus, seconds: float) -> None:
        meters = self._known.get((model, status))
        if meters is None:
            result = _RESULTS[status]
            meters = self._known[model, status] = _answers.labels(model, result), _seconds.labels(model, result)
        meters[0].inc()
        meters[1].observe(seconds)

    def failed(self, model: str, error: PorticoError) -> None:
        if isinstance(error, NotCached):  # what the client asked for
            return
        _failures.labels(model, type(error).__name__).inc()

    def kept(self, model: str, size: int) -> None:
        _stored.labels(model).inc(size)

    def remembered(self, model: str) -> Callable[[], None]:
        """What counts the answers of a model from the gateway's memory."""
        counter = self._remembered.get(model)
        if counter is None:
            counter = self._remembered[model] = _answers.labels(model, _FROM_MEMORY)
        return counter.inc


class MemoryMeter:
    """What the first level of the cache counts."""

    def __init__(self, meter: PrometheusMeter) -> None:
        self.remembered = meter.remembered
        self.evicted = evictions.inc

    def grown(self, entries: int, size: int) -> None:
        """By so many answers, and bytes."""
        memory_entries.inc(entries)
        memory_bytes.inc(size)
