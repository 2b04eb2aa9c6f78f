"""The goals that the project has set itself for its speed, as data: a ratio of what was measured, and its bound."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from cases import ANOTHER, ENVOY, IN_FLIGHT_16_MB, SIXTEEN, THROUGH, THROUGH_REST

PYTHON_PEERS = {
    "rest": ("tutorial", "mlserver", "kserve", "litserve", "bentoml", "ray"),
    "grpc": ("mlserver", "kserve"),
}


class Results(Protocol):
    """What there is to compute with; see `report.Results`."""

    def beside(self, group: str, name: str, other: str, value: Any) -> float | None: ...
    def median(self, group: str, name: str, value: Any) -> float | None: ...


@dataclass(frozen=True)
class Goal:
    """`measured` is None when something was not measured. With `at_most`, less is better. With fewer `cores` than those
    the load generator has none of its own, and the ratio tells nothing.
    """

    case: str
    text: str
    measured: Callable[[Results], float | None]
    bound: float
    at_most: bool = False
    unit: str = ""
    cores: int = 1

    def is_met(self, value: float) -> bool:
        """Whether it is."""
        return value <= self.bound if self.at_most else value >= self.bound

    def shown(self, value: float) -> str:
        """For people."""
        return f"{value:.3g}{self.unit}"


def _rate(group: str, name: str, other: str) -> Callable[[Results], float | None]:
    return lambda results: results.beside(group, name, other, "rate")


def _p50(group: str, name: str, other: str) -> Callable[[Results], float | None]:
    return lambda results: results.beside(group, name, other, "p50")


def only_parses(peer: str) -> str:
    """The name of that case."""
    return f"{peer} only parses it"


def _longer(group: str) -> Callable[[Results], float | None]:
    return lambda results: results.beside(group, "miss, Predict", ANOTHER, lambda a, b: a["p50"] - b["p50"])


def _best_peer(kind: str) -> Callable[[Results], float | None]:
    """The ratio to the best of the Python peers, when all were measured that have this kind."""

    def measured(results: Results) -> float | None:
        ratios = [results.beside(f"peer-{name}-{kind}", PORTICO, name, "rate") for name in PYTHON_PEERS[kind]]
        known = [ratio for ratio in ratios if ratio is not None]
        return min(known) if len(known) == len(ratios) else None

    return measured


def _held(name: str) -> Callable[[Results], float | None]:
    """By how much the gateway's memory has grown, in bytes of the requests in flight."""
    in_flight = IN_FLIGHT_16_MB * SIXTEEN * 64
    return lambda results: results.median("tensors-16mb", name, lambda each: each["grown"] / in_flight)


PORTICO = "Portico"
CACHED_REST, CACHED_GRPC = (f"cached {kind}, one gateway on one core" for kind in ("REST", "gRPC"))
REST, INFER = "memory, JSON", "memory, ModelInfer"
MISS, TORCH, LARGE = "miss, gRPC to TF Serving", "miss, REST to TorchServe", "16 MB tensors"
DIRECT = "TorchServe, called directly"
BEST = "6 × the best Python peer, those without a cache among them"
GOALS = (
    Goal(CACHED_REST, "0.5 of the limit", _rate("hits-rest-32", REST, ENVOY), 0.5),
    Goal(CACHED_REST, "1.0 of Triton with its cache", _rate("peer-triton-rest", PORTICO, "triton"), 1.0),
    Goal(CACHED_REST, BEST, _best_peer("rest"), 6.0),
    Goal(CACHED_GRPC, "0.33 of the limit", _rate("hits-grpc-32", INFER, ENVOY), 0.33),
    Goal(CACHED_GRPC, "0.9 of Triton with its cache", _rate("peer-triton-grpc", PORTICO, "triton"), 0.9),
    Goal(CACHED_GRPC, BEST, _best_peer("grpc"), 6.0),
    Goal("p50 of a hit, one in flight, REST", "at most 2 × Envoy", _p50("hits-rest-1", REST, ENVOY), 2.0, True),
    Goal("p50 of a hit, one in flight, gRPC", "at most 2 × Envoy", _p50("hits-grpc-1", INFER, ENVOY), 2.0, True),
    Goal("Redis hit, REST", "0.5 of the hit in memory", _rate("hits-rest-32", "Redis, JSON", REST), 0.5),
    Goal("Redis hit, gRPC", "0.5 of the hit in memory", _rate("hits-grpc-32", "Redis, ModelInfer", INFER), 0.5),
    *(
        goal
        for key, case in (("front", f"{MISS}, which has its answer ready"), ("tf", f"{MISS}, the stand-in"))
        for goal in (
            Goal(case, "0.6 of Envoy passing through", _rate(f"{key}-grpc-32", "miss, Predict", ANOTHER), 0.6),
            Goal(case, "p50, one in flight, at most 0.4 ms longer", _longer(f"{key}-grpc-1"), 0.4, True, " ms"),
        )
    ),
    Goal(TORCH, "1.0 of TorchServe called directly", _rate("torch-rest-32", "miss", DIRECT), 1.0),
    Goal(TORCH, "p50 at one in flight at most 1.1 ×", _p50("torch-rest-1", "miss", DIRECT), 1.1, True),
    *(
        Goal(f"{LARGE}, {name}", "0.7 of Envoy passing through", _rate("tensors-16mb", f"bypass, {name}", through), 0.7)
        for name, through in (("Predict", THROUGH), ("ModelInfer", THROUGH), ("REST, binary", THROUGH_REST))
    ),
    *(
        Goal(
            f"{LARGE}, {name}", "peak memory at most 3 × the bytes of the requests", _held(f"bypass, {name}"), 3.0, True
        )
        for name in ("Predict", "ModelInfer", "REST, binary")
    ),
    *(
        Goal(
            "Open Inference JSON, 1 MB of numbers, there and back",
            f"less time than {peer} takes to only parse it",
            _p50(f"peer-{peer}-json-1", PORTICO, only_parses(peer)),
            1.0,
            True,
        )
        for peer in ("mlserver", "kserve")
    ),
    Goal("1,000 models, hits", "0.95 of 1 model", _rate("models-hits", "1,000 models", "1 model"), 0.95),
    Goal("1,000 models, calls", "0.95 of 1 model", _rate("models-bypass", "1,000 models", "1 model"), 0.95),
    *(
        Goal(
            f"edge and two gateways on two cores, {kind}",
            "1.8 × edge and one on one core (wants a third core)",
            _rate(f"gateways-{kind.lower()}", "edge and 2 gateways, 2 cores", "edge and 1 gateway, 1 core"),
            1.8,
            cores=3,
        )
        for kind in ("REST", "gRPC")
    ),
)
