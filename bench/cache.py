"""What the response cache is worth: a hit in the gateway's memory, a hit in Redis, a miss, identical requests at once,
and the cache left out, beside the same request sent to the model server, and beside a GET of the same Redis.

Run by `make bench`: starts a stack on loopback, and writes bench/cache.md and bench/cache.json. Every round measures
each case once; what counts are ratios within a round, of which the median is told.
"""

import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from load import Plan, Result, run
from redis.asyncio import Redis

from portico.local import layout
from portico.local.stack import Stack

sys.path[:0] = [str(layout.ROOT / "tests" / "stack")]

from probe_models import SavedModels, archive  # noqa: E402

ROUNDS = 5
SECONDS = 1.5
CONNECTIONS = (1, 32)
HERE = Path(__file__).parent
DIRECT = "the model server, called directly"
REDIS = "GET of the same Redis"
KEPT = "cache-control: max-age=86400\r\n"
"""Any age will do: so the gateway's memory, which is for those who say nothing, is passed by and Redis is asked."""


@dataclass(frozen=True)
class Case:
    """One kind of request. `expected` are the x-cache of its answers."""

    name: str
    plan: Plan
    expected: tuple[str, ...]


class Server:
    """A model on one server: how to ask for it through the door, and directly."""

    def __init__(self, name: str, door: int, direct: int, paths: tuple[str, str], body: str) -> None:
        self.name = name
        self._door, self._direct = door, direct
        self._paths, self._body = paths, body
        self._numbers = 1

    def cases(self, connections: int) -> Iterator[Case]:
        """In an order that puts what is compared side by side. Misses have new numbers each time."""
        through, straight = (
            f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n" for path in self._paths
        )
        fixed = self._body.replace("@", "7")
        self._numbers += 1_000_000
        first = self._numbers

        def plan(head: str, body: str, *, together: int = 1, port: int = self._door) -> Plan:
            return Plan(port, head, body, connections, SECONDS, first, together)

        yield Case(DIRECT, plan(straight, fixed, port=self._direct), ("none",))
        yield Case("bypass (no-store)", plan(through + "cache-control: no-store\r\n", fixed), ("BYPASS",))
        yield Case("miss", plan(through, self._body), ("MISS",))
        if connections > 1:
            first += 500_000
            shared = plan(through, self._body, together=connections)
            yield Case(f"{connections} identical at once", shared, ("MISS", "COALESCED", "HIT"))
        yield Case("hit in Redis", plan(through + KEPT, fixed), ("HIT",))
        yield Case("hit in memory", plan(through, fixed), ("HIT",))


def measured(case: Case) -> Result:
    """Raises SystemExit if the answers are not what the case is about, but for the first ones, which fill the cache."""
    result = run(case.plan)
    others = result.answers - sum(result.cache.get(status, 0) for status in case.expected)
    if others > case.plan.connections or set(result.statuses) != {"200"}:
        raise SystemExit(f"{case.name}: answers were {result.cache}, {result.statuses}")
    return result


async def an_entry(port: int) -> bytes:
    """The command that gets an entry of the cache."""
    async with Redis(host="127.0.0.1", port=port) as redis:
        async for key in redis.scan_iter("portico:cache:*"):
            return b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key)
    raise SystemExit("Redis holds no entry of the cache")


def rounds(server: Server, redis: int, connections: int) -> dict[str, list[Result]]:
    """Every case, several times."""
    found: dict[str, list[Result]] = {}
    for _ in range(ROUNDS):
        for case in server.cases(connections):
            found.setdefault(case.name, []).append(measured(case))
        command = asyncio.run(an_entry(redis)).decode()
        found.setdefault(REDIS, []).append(run(Plan(redis, "", command, connections, SECONDS)))
    return found


def rows(found: dict[str, list[Result]]) -> Iterator[str]:
    """Markdown."""
    yield "| case | answers/s | p50 ms | p99 ms | × direct | × GET of Redis | p50 ÷ direct |"
    yield "|---|---|---|---|---|---|---|"
    for name, results in found.items():
        numbers = [statistics.median(getattr(each, part) for each in results) for part in ("rate", "p50", "p99")]
        ratios = [
            statistics.median(mine.rate / other.rate for mine, other in zip(results, found[beside], strict=True))
            for beside in (DIRECT, REDIS)
        ]
        p50 = statistics.median(mine.p50 / other.p50 for mine, other in zip(results, found[DIRECT], strict=True))
        cells = [f"{numbers[0]:,.0f}", f"{numbers[1]:.2f}", f"{numbers[2]:.2f}", *(f"{ratio:.2f}" for ratio in ratios)]
        yield f"| {name} | " + " | ".join([*cells, f"{p50:.2f}"]) + " |"


def main() -> None:
    """Measures, prints, and writes both files."""
    lines = [
        "# What the response cache is worth",
        "",
        f"Medians of {ROUNDS} interleaved rounds of {SECONDS:g} s each, by `make bench` on {os.cpu_count()} cores "
        f"({platform.machine()}), with the load generator, Envoy, gateway, Redis and model servers all on them. "
        "REST with small bodies. TF Serving is our stand-in, TorchServe the real one. Ratios count; a machine's "
        "absolute numbers are its own.",
    ]
    everything: dict[str, dict[str, list[dict[str, object]]]] = {}
    with tempfile.TemporaryDirectory(prefix="portico-bench-") as folder:
        scratch, models = Path(folder), Path(folder) / "models"
        for name, data in SavedModels(layout.TF_SERVING_PYTHON, scratch / "probe").files(1).items():
            (models / "tf" / "1" / name).parent.mkdir(parents=True, exist_ok=True)
            (models / "tf" / "1" / name).write_bytes(data)
        (models / "torch.mar").write_bytes(archive(1))
        with Stack(models) as stack:
            stack.wait_for_models(240)
            here = stack.addresses
            for server in servers(stack):
                for connections in CONNECTIONS:
                    began = time.monotonic()
                    found = rounds(server, here.redis, connections)
                    print(f"{server.name}, {connections}: {time.monotonic() - began:.0f} s", flush=True)
                    lines += ["", f"## {server.name}, {connections} at a time", "", *rows(found)]
                    everything[f"{server.name} {connections}"] = {
                        name: [asdict(each) for each in results] for name, results in found.items()
                    }
    (HERE / "cache.md").write_text("\n".join(lines) + "\n")
    (HERE / "cache.json").write_text(json.dumps(everything, indent=1) + "\n")
    print("\n".join(lines))


def servers(stack: Stack) -> list[Server]:
    """The two models, whose servables the model servers know by names of the controller's."""
    here = stack.addresses
    tf, torch = (next((stack.scratch / "stage" / kind).glob(f"{model}--*")).name for kind, model in STAGED)
    return [
        Server(
            "TorchServe",
            here.clients,
            here.torchserve_rest,
            ("/predictions/torch", f"/predictions/{torch.removesuffix('.mar')}"),
            '{"x": @}',
        ),
        Server(
            "TF Serving (stand-in)",
            here.clients,
            here.tf_serving_rest,
            ("/v1/models/tf:predict", f"/v1/models/{tf}:predict"),
            '{"instances": [@]}',
        ),
    ]


STAGED = (("tf-serving", "tf"), ("torchserve", "torch"))

if __name__ == "__main__":
    main()
