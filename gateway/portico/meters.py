"""What Prometheus is told of the cache. The names are those of docs/metrics.md."""

from collections.abc import Callable, Iterable

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from portico.errors import NotCached, PorticoError
from portico.freshness import CacheStatus

errors = Counter("portico_cache_errors", "What went wrong with Redis; no request fails of it.", ["kind"])
memory_bytes = Gauge("portico_cache_memory_bytes", "Bytes of answers in the gateway's own memory.")
memory_entries = Gauge("portico_cache_memory_entries", "Answers in the gateway's own memory.")
evictions = Counter("portico_cache_memory_evictions", "Answers that made room for others in the gateway's own memory.")
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


class _Count:
    """How many answers. Only the event loop's thread counts, so that it takes no lock, as a Counter does."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def inc(self) -> None:
        self.count += 1


class _Answers(Collector):
    """The answers by model and result; counted for each request, also for those from the gateway's memory."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], _Count] = {}

    def labels(self, model: str, result: str) -> _Count:
        return self._counts.setdefault((model, result), _Count())

    def collect(self) -> Iterable[CounterMetricFamily]:
        family = CounterMetricFamily(
            "portico_cache_answers",
            "Answers to calls of a model: from the gateway's memory, from Redis, by the model, by another's call of "
            "the model, and past the cache.",
            labels=["model", "result"],
        )
        for labels, each in list(self._counts.items()):
            family.add_metric(labels, each.count)
        yield family


_answers = _Answers()
REGISTRY.register(_answers)


class PrometheusMeter:
    """Implements `ports.Meter`. Label look-ups take longer than counting, so that each is done once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, CacheStatus], tuple[_Count, Histogram]] = {}
        self._remembered: dict[str, _Count] = {}

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
