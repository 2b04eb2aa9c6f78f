"""The table of cases: what is measured beside what. It is data; how a group is run is in `speed.py`, what is running by
which name is in `stage.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import bodies
from bodies import MODEL, Body
from loads import Load

INFER = f"/v2/models/{MODEL}/infer"
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
PREDICT = "/tensorflow.serving.PredictionService/Predict"
NO_STORE = (("cache-control", "no-store"),)
REDIS = (("cache-control", "max-age=86400"),)
"""Any age will do: so the gateway's memory, which is for those who say nothing, is passed by and Redis is asked."""
MEMORY_HIT, REDIS_HIT, MISS, BYPASS = ("hit_memory",), ("hit_redis",), ("miss",), ("bypass",)
SHARED = ("miss", "coalesced", "hit_memory", "hit_redis")
ENVOY, THROUGH, ECHO = "Envoy answers by itself", "Envoy passes through", "echo on pyvoy"
RELAY = "relay on pyvoy with grpc.aio"
GET = "GET of the same Redis"
TOGETHER = "32 identical at once"
ANOTHER, THROUGH_REST = f"{THROUGH}, each another", f"{THROUGH}, REST, binary"
TEN, MEGA, SIXTEEN = (bodies.rows_of(size) for size in (10_000, 1_000_000, 16_000_000))
IN_FLIGHT_16_MB = 4
MEGA_OF_JSON = bodies.rows_of(470_000)
ALONE = "canned, gateway alone"

DEFAULT, BUSY = "gateway by default", "a busy program"
"""What only some cases need: another gateway, and a program that wants the core of what is measured."""


@dataclass(frozen=True)
class Side:
    """One load on one target. `expected` is what the cache has to do with its answers, for gateways. Where `size` is
    set, an answer has so many bytes, and nobody asks for it beforehand. With a `parser` (its name and its Python, see
    `json_parse.py`) nothing is asked at all: it only reads the body.
    """

    name: str
    target: str
    load: Load
    expected: tuple[str, ...] = ()
    size: int | None = None
    parser: tuple[str, str] | None = None


@dataclass(frozen=True)
class Group:
    """Sides that are measured in turns, as ratios to the one called `limit`. `needs` is what has to be started for it
    alone, by names of `stage.py`.
    """

    key: str
    title: str
    limit: str
    sides: tuple[Side, ...]
    needs: tuple[str, ...] = ()
    note: str = ""

    def at_a_time(self, in_flight: int, *names: str) -> "Group":
        """Some of the sides with another concurrency."""
        sides = (replace(side, load=side.load.at_a_time(in_flight)) for side in self.sides if side.name in names)
        title = self.title.replace("32 in flight", f"{in_flight} in flight")
        return replace(self, key=self.key.replace("-32", f"-{in_flight}"), title=title, sides=tuple(sides))


def envoy_over_grpc(body: Body, target: str = "envoy grpc", rows: int = 1) -> Side:
    """Envoy answers a gRPC request by itself only with an error, so that its content type has to be another."""
    load = Load(MODEL_INFER, replace(body, content_type="application/octet-stream"), 2)
    return Side(ENVOY, target, load, size=len(bodies.grpc_answer(rows)))


def hits() -> Iterator[Group]:
    """What is answered without the model."""
    asked, binary, infer = bodies.open_inference_json(), bodies.open_inference_binary(), bodies.model_infer()
    rest = Group(
        "hits-rest-32",
        "Hits, REST, 32 in flight",
        ENVOY,
        (
            Side(ENVOY, "envoy json", Load(INFER, asked)),
            Side(ECHO, "echo", Load(INFER, asked)),
            Side("memory, JSON", "gateway", Load(INFER, asked), MEMORY_HIT),
            Side("memory, binary", "gateway", Load(INFER, binary), MEMORY_HIT),
            Side("Redis, JSON", "gateway", Load(INFER, asked, headers=REDIS), REDIS_HIT),
            Side(GET, "redis", Load("", bodies.redis_get(), 0), size=len(bodies.grpc_answer())),
        ),
    )
    grpc = Group(
        "hits-grpc-32",
        "Hits, gRPC, 32 in flight",
        ENVOY,
        (
            envoy_over_grpc(infer),
            Side(ECHO, "echo", Load(MODEL_INFER, infer, 2)),
            Side("memory, ModelInfer", "gateway", Load(MODEL_INFER, infer, 2), MEMORY_HIT),
            Side("memory, Predict", "gateway", Load(PREDICT, bodies.predict(), 2), MEMORY_HIT),
            Side("Redis, ModelInfer", "gateway", Load(MODEL_INFER, infer, 2, headers=REDIS), REDIS_HIT),
        ),
    )
    yield rest
    yield grpc
    yield rest.at_a_time(1, ENVOY, ECHO, "memory, JSON", "Redis, JSON", GET)
    yield grpc.at_a_time(1, ENVOY, ECHO, "memory, ModelInfer", "Redis, ModelInfer")
    yield rest.at_a_time(256, ENVOY, "memory, JSON")
    yield grpc.at_a_time(256, ENVOY, "memory, ModelInfer")


def hits_of_10_kb() -> Iterator[Group]:
    """Hits with more to carry."""
    asked, binary = bodies.open_inference_json(TEN), bodies.open_inference_binary(TEN)
    infer = bodies.model_infer(TEN)
    yield Group(
        "hits-rest-10k",
        "Hits, REST, bodies of 10 kB, 32 in flight",
        ENVOY,
        (
            Side(ENVOY, "envoy json 10k", Load(INFER, asked)),
            Side("memory, JSON", "gateway", Load(INFER, asked), MEMORY_HIT),
            Side("memory, binary", "gateway", Load(INFER, binary), MEMORY_HIT),
        ),
        note="As many numbers in JSON as make 10 kB in binary, so that the JSON is twice as long.",
    )
    yield Group(
        "hits-grpc-10k",
        "Hits, gRPC, bodies of 10 kB, 32 in flight",
        ENVOY,
        (
            envoy_over_grpc(infer, "envoy grpc 10k", TEN),
            Side("memory, ModelInfer", "gateway", Load(MODEL_INFER, infer, 2), MEMORY_HIT),
        ),
    )


def in_front() -> Iterator[Group]:
    """What a call costs before it is at a model server, which has its answer ready."""
    predict, infer, door = bodies.predict(), bodies.model_infer(), "canned, gateway and door"
    group = Group(
        "front-grpc-32",
        "Misses, gRPC, to a server with a ready answer, 32 in flight",
        THROUGH,
        (
            Side(THROUGH, "canned, through", Load(PREDICT, predict, 2)),
            Side(RELAY, "canned, relay", Load(PREDICT, predict, 2)),
            Side("bypass, Predict", door, Load(PREDICT, predict, 2, headers=NO_STORE), BYPASS),
            Side("bypass, ModelInfer", door, Load(MODEL_INFER, infer, 2, headers=NO_STORE), BYPASS),
            Side("bypass, Predict, no door", ALONE, Load(PREDICT, predict, 2, headers=NO_STORE), BYPASS),
            Side(ANOTHER, "canned, through", Load(PREDICT, predict, 2, unique=True)),
            Side("miss, Predict", door, Load(PREDICT, predict, 2, unique=True), MISS),
            Side("miss, Predict, in one process", "canned, compact", Load(PREDICT, predict, 2, unique=True), MISS),
            Side(TOGETHER, door, Load(PREDICT, predict, 2, unique=True, together=32), SHARED),
        ),
        ("canned 1",),
        "In the place of TF Serving there is a server that speaks its protocol and has the answer ready. "
        "Where requests are each another, the load is our own generator's, on both sides.",
    )
    yield group
    yield group.at_a_time(
        1,
        THROUGH,
        RELAY,
        "bypass, Predict",
        "bypass, Predict, no door",
        ANOTHER,
        "miss, Predict",
        "miss, Predict, in one process",
    )


def tf_serving(servables: Mapping[str, str]) -> Iterator[Group]:
    """What TF Serving has to answer."""
    straight, predict = bodies.predict(servables[MODEL]), bodies.predict()
    direct = "TF Serving, called directly"
    grpc = Group(
        "tf-grpc-32",
        "Misses, gRPC to TF Serving, 32 in flight",
        THROUGH,
        (
            Side(THROUGH, "through tf grpc", Load(PREDICT, straight, 2)),
            Side(direct, "tf-serving grpc", Load(PREDICT, straight, 2)),
            Side("bypass, Predict", "gateway and door", Load(PREDICT, predict, 2, headers=NO_STORE), BYPASS),
            Side(ANOTHER, "through tf grpc", Load(PREDICT, straight, 2, unique=True)),
            Side("miss, Predict", "gateway and door", Load(PREDICT, predict, 2, unique=True), MISS),
            Side(TOGETHER, "gateway and door", Load(PREDICT, predict, 2, unique=True, together=32), SHARED),
        ),
    )
    yield grpc
    yield grpc.at_a_time(1, THROUGH, direct, "bypass, Predict", ANOTHER, "miss, Predict")
    asked, columns, path = bodies.open_inference_json(), bodies.tf_json(), f"/v1/models/{MODEL}:predict"
    own = f"/v1/models/{servables[MODEL]}:predict"
    rest = Group(
        "tf-rest-32",
        "Misses, REST to TF Serving, 32 in flight",
        THROUGH,
        (
            Side(THROUGH, "through tf rest", Load(own, columns)),
            Side(direct, "tf-serving rest", Load(own, columns)),
            Side("bypass, TF Serving's JSON", "gateway and door", Load(path, columns, headers=NO_STORE), BYPASS),
            Side("bypass, Open Inference JSON", "gateway and door", Load(INFER, asked, headers=NO_STORE), BYPASS),
            Side("miss, TF Serving's JSON", "gateway and door", Load(path, columns, unique=True), MISS),
            Side("miss, Open Inference JSON", "gateway and door", Load(INFER, asked, unique=True), MISS),
            Side(TOGETHER, "gateway and door", Load(INFER, asked, unique=True, together=32), SHARED),
        ),
    )
    yield rest
    yield rest.at_a_time(1, THROUGH, direct, "miss, Open Inference JSON")


def torchserve(servables: Mapping[str, str]) -> Iterator[Group]:
    """What TorchServe has to answer."""
    asked, name = bodies.torch_json(), f"{MODEL}-torch"
    path, own = f"/predictions/{name}", f"/predictions/{servables[name]}"
    direct = "TorchServe, called directly"
    group = Group(
        "torch-rest-32",
        "Misses, REST to TorchServe, 32 in flight",
        direct,
        (
            Side(direct, "torchserve rest", Load(own, asked)),
            Side(THROUGH, "through torchserve", Load(own, asked)),
            Side("bypass", "gateway and door", Load(path, asked, headers=NO_STORE), BYPASS),
            Side("miss", "gateway and door", Load(path, asked, unique=True), MISS),
            Side(TOGETHER, "gateway and door", Load(path, asked, unique=True, together=32), SHARED),
            Side("hit in memory", "gateway", Load(path, asked), MEMORY_HIT),
        ),
    )
    yield group
    yield group.at_a_time(1, direct, THROUGH, "bypass", "miss")


def large() -> Iterator[Group]:
    """Tensors of several sizes, there and back."""
    for rows, size, in_flight in ((TEN, "10 kB", 32), (MEGA, "1 MB", 8), (SIXTEEN, "16 MB", IN_FLIGHT_16_MB)):
        door, slow = "canned, gateway and door", rows > TEN
        by = partial(Load, in_flight=in_flight, headers=NO_STORE, drained=slow)
        sides = [
            Side(THROUGH, "canned, through", by(PREDICT, bodies.predict(rows=rows), 2)),
            Side("bypass, Predict", door, by(PREDICT, bodies.predict(rows=rows), 2), BYPASS),
            Side("bypass, ModelInfer", door, by(MODEL_INFER, bodies.model_infer(rows), 2), BYPASS),
            Side(THROUGH_REST, "canned, through", by(INFER, bodies.open_inference_binary(rows))),
            Side("bypass, REST, binary", door, by(INFER, bodies.open_inference_binary(rows)), BYPASS),
        ]
        if rows != SIXTEEN:
            sides.append(Side("bypass, REST, JSON", door, by(INFER, bodies.open_inference_json(rows)), BYPASS))
        title, key = f"Tensors of {size}, there and back, {in_flight} in flight", size.lower().replace(" ", "")
        note = "REST has an Envoy passing through of its own, asked by the same generator over the same protocol."
        yield Group(f"tensors-{key}", title, THROUGH, tuple(sides), (f"canned {rows}",), note)


def many_models() -> Iterator[Group]:
    """Whether a model is served slower for the others beside it."""
    hit, call = Load(INFER, bodies.open_inference_json()), Load(MODEL_INFER, bodies.model_infer(), 2, headers=NO_STORE)
    stacks = {"1 model": "1 model", "100 models": "100 models", "1,000 models": "1000 models"}
    for key, title, load, expected in (
        ("models-hits", "Hits, REST, by the number of models", hit, MEMORY_HIT),
        ("models-bypass", "Calls of TF Serving, gRPC, by the number of models", call, BYPASS),
    ):
        sides = [Side(name, stack, load, expected) for name, stack in stacks.items()]
        yield Group(key, f"{title}, 32 in flight", "1 model", tuple(sides), tuple(stacks.values()))


def own_cores() -> Iterator[Group]:
    """What it brings that a gateway knows its core to be its own (PORTICO_OWN_CORES), as in all other cases."""
    hit, infer = Load(INFER, bodies.open_inference_json()), Load(MODEL_INFER, bodies.model_infer(), 2)
    call = Load(PREDICT, bodies.predict(), 2, headers=NO_STORE)
    for key, title, load, door, expected in (
        ("rest", "Hits, REST", hit, "", MEMORY_HIT),
        ("bypass", "Calls of TF Serving, gRPC", call, " and door", BYPASS),
        ("grpc", "Hits, gRPC", infer, "", MEMORY_HIT),
    ):
        names = "by default", "with PORTICO_OWN_CORES"
        targets = f"{DEFAULT}{door}", f"gateway{door}"
        sides = tuple(Side(name, target, load, expected) for name, target in zip(names, targets, strict=True))
        group = Group(f"own-cores-{key}-32", f"Cores of its own: {title}, 32 in flight", names[0], sides, (DEFAULT,))
        yield group
        if key == "grpc":
            group = group.at_a_time(1, *names)
            title = f"{group.title}, beside a busy program"
            yield replace(group, key="own-cores-busy-1", title=title, needs=(DEFAULT, BUSY))


def gateways() -> Iterator[Group]:
    """One gateway behind the edge on one core, and two on two."""
    for key, load in (
        ("rest", Load(INFER, bodies.open_inference_json(), in_flight=64)),
        ("grpc", Load(MODEL_INFER, bodies.model_infer(), 2, in_flight=64)),
    ):
        sides = (
            Side("edge and 1 gateway, 1 core", "edge of 1", load, MEMORY_HIT),
            Side("edge and 2 gateways, 2 cores", "edge of 2", load, MEMORY_HIT),
            Side("edge and gateway in one process, 1 core", "compact", load, MEMORY_HIT),
            Side("gateway without the edge", "gateway", load, MEMORY_HIT),
        )
        title = f"Hits, {'gRPC' if key == 'grpc' else 'REST'}, one and two gateways, 64 in flight"
        note = "With two cores in all, the load generator takes its share of the second one."
        yield Group(f"gateways-{key}", title, sides[0].name, sides, ("gateways", "compact"), note)


def all_groups(servables: Mapping[str, str]) -> list[Group]:
    """In the order in which they are told of. `servables` are the models' names inside their servers."""
    return [
        *hits(),
        *hits_of_10_kb(),
        *in_front(),
        *tf_serving(servables),
        *torchserve(servables),
        *large(),
        *own_cores(),
        *gateways(),
        *many_models(),
    ]
