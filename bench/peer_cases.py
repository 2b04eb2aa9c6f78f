"""The groups of cases in which Portico is measured beside what people pick instead, one peer at a time."""

from collections.abc import Iterator
from contextlib import contextmanager

import json_parse
from bodies import Body, framed, model_infer, open_inference_json
from cases import BYPASS, ENVOY, INFER, MEGA_OF_JSON, MEMORY_HIT, MODEL_INFER, NO_STORE, Group, Side, envoy_over_grpc
from loads import Load
from machine import pin, reserve
from peers import PEERS
from peers.call import Endpoint
from peers.peer import Peer, Running
from stage import Stage, Target
from targets import PORTICO, only_parses


def chosen(names: str) -> list[Peer]:
    """By their names with commas, or all, or none. Raises SystemExit for a name that none has."""
    wanted = list(PEERS) if names == "all" else [] if names == "none" else names.split(",")
    unknown = [name for name in wanted if name not in PEERS]
    if unknown:
        raise SystemExit(f"--peers {names}: there are all, none, {', '.join(PEERS)}")
    return [PEERS[name] for name in wanted]


@contextmanager
def running(peer: Peer, stage: Stage) -> Iterator[list[Group]]:
    """What is to be measured while a peer runs, on the core of what is measured."""
    peer.install()
    with peer.start() as started:
        for pid in started.pids:
            reserve(pid, stage.cores.front)
        for pid in started.behind:
            pin(pid, (stage.cores.back,))
        groups = []
        if started.rest:
            groups.append(_rest(peer, stage, started, started.rest))
        if started.grpc:
            groups.append(_grpc(peer, stage, started, started.grpc))
        if peer.name in json_parse.READERS:
            groups.append(_parsing(peer))
        yield groups


def _rest(peer: Peer, stage: Stage, started: Running, endpoint: Endpoint) -> Group:
    stage.targets["peer rest"] = Target(endpoint.port, tuple(started.pids))
    asked = open_inference_json()
    load = Load(endpoint.path, Body(endpoint.body, endpoint.content_type))
    sides = (
        Side(ENVOY, "envoy json", Load(INFER, asked)),
        Side(PORTICO, "gateway", Load(INFER, asked), MEMORY_HIT),
        Side(peer.name, "peer rest", load, size=len(_answer(peer, endpoint))),
    )
    return Group(f"peer-{peer.name}-rest", _title(peer, "REST"), ENVOY, sides, note=_note(peer))


def _grpc(peer: Peer, stage: Stage, started: Running, endpoint: Endpoint) -> Group:
    stage.targets["peer grpc"] = Target(endpoint.port, tuple(started.pids))
    infer = model_infer()
    load = Load(endpoint.path, framed(endpoint.body), 2, drained=True)
    sides = (
        envoy_over_grpc(infer),
        Side(PORTICO, "gateway", Load(MODEL_INFER, infer, 2), MEMORY_HIT),
        Side(peer.name, "peer grpc", load, size=len(framed(_answer(peer, endpoint)).data)),
    )
    return Group(f"peer-{peer.name}-grpc", _title(peer, "gRPC"), ENVOY, sides, note=_note(peer))


def _parsing(peer: Peer) -> Group:
    """All that Portico does with 1 MB of JSON, and the server behind it, beside what a peer does first of all."""
    load = Load(INFER, open_inference_json(MEGA_OF_JSON), in_flight=1, headers=NO_STORE, drained=True)
    sides = (
        Side(only_parses(peer.name), "", load, parser=(peer.name, str(peer.environment.python))),
        Side(PORTICO, "canned, gateway and door", load, BYPASS),
    )
    title = f"1 MB of Open Inference JSON, beside what {peer.name} takes to only parse it, 1 in flight"
    return Group(f"peer-{peer.name}-json-1", title, sides[0].name, sides, (f"canned {MEGA_OF_JSON}",))


def _answer(peer: Peer, endpoint: Endpoint) -> bytes:
    """Asked for twice, so that it is in the peer's cache."""
    answers = [endpoint.ask() for _ in range(2)]
    if not all(answer is not None and endpoint.expected(answer) for answer in answers):
        raise SystemExit(f"{peer.name} answers {answers}")
    return answers[1] or b""


def _title(peer: Peer, kind: str) -> str:
    return f"Beside {peer.name}, {kind}, 32 in flight"


def _note(peer: Peer) -> str:
    return (
        f"{peer.name} {peer.version}, {'its cache is on' if peer.cached else 'without a cache'}; Portico answers hits."
    )
