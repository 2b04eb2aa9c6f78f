"""What is measured, running: the stack, gateways of the benchmark's own beside it, and the baselines; each on
the core where it belongs, and known by a name to the table of cases.
"""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import baselines
import bodies
from cases import BUSY, DEFAULT
from machine import Cores, pin, reserve

from portico.local import layout
from portico.local.addresses import free_ports, place
from portico.local.parts import Surroundings, gateway
from portico.local.process import PartProcess
from portico.local.stack import NOT_FOR_PARTS, Stack

HERE = Path(__file__).parent
CANNED = "canned "
TORCH_MODEL = f"{bodies.MODEL}-torch"
HANDLER = """
def handle(data, context):
    return None if data is None else [{"y": [2 * number for number in row["body"]["x"]]} for row in data]
"""
_ANSWERS = re.compile(r'^portico_cache_answers_total\{.*result="(\w+)"\} (\S+)', re.MULTILINE)


@dataclass(frozen=True)
class Target:
    """What a load is put on. `front` are the processes that are measured, `metrics` the ports of gateways' metrics."""

    port: int
    front: tuple[int, ...] = ()
    metrics: tuple[int, ...] = ()

    def tally(self) -> Counter[str]:
        """How many answers the gateways have given so far, by what the cache had to do with them."""
        told: Counter[str] = Counter()
        for port in self.metrics:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                for result, count in _ANSWERS.findall(answer.read().decode()):
                    told[result] += int(float(count))
        return told


def saved_model() -> Path:
    """The folder of the SavedModel's files, made when there is none or its script has changed."""
    script = HERE / "make_double.py"
    made = layout.VENVS / "bench" / f"double-{hashlib.sha256(script.read_bytes()).hexdigest()[:12]}"
    if not made.exists():
        aside = made.with_name(f".{made.name}")
        command = [str(layout.TF_SERVING_PYTHON), str(script), str(aside)]
        subprocess.run(command, check=True, capture_output=True, timeout=240)
        aside.rename(made)
    return made


def fill(models: Path, count: int) -> None:
    """A repository of the model that is asked, and others beside it; with one alone, TorchServe's, too."""
    models.mkdir(parents=True)
    for name in (bodies.MODEL, *(f"other-{number:04}" for number in range(count - 1))):
        shutil.copytree(saved_model(), models / name / "1")
    if count == 1:
        manifest = {"modelName": TORCH_MODEL, "modelVersion": "1.0", "handler": "handler.py:handle"}
        with zipfile.ZipFile(models / f"{TORCH_MODEL}.mar", "w") as packed:
            packed.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "python", "model": manifest}))
            packed.writestr("handler.py", HANDLER)


@dataclass
class Stage:
    """`targets` by name. What is started is stopped when `opened` is closed."""

    cores: Cores
    scratch: Path
    opened: ExitStack
    targets: dict[str, Target] = field(default_factory=dict)
    servables: dict[str, str] = field(default_factory=dict)
    main: Stack = field(init=False)
    _lent: tuple[str, ...] = ()
    _lending: ExitStack = field(default_factory=ExitStack)

    def start_stack(self, name: str, count: int = 1, lent: ExitStack | None = None) -> Stack:
        """A stack that serves so many models; its gateway gets this name."""
        if not (self.scratch / name).exists():
            fill(self.scratch / name, count)
        began = time.monotonic()
        stack = (lent or self.opened).enter_context(Stack(self.scratch / name))
        found, wanted = stack.wait_for_models(600), len(list((self.scratch / name).iterdir()))
        missing = [model.name for model in found if not model.ready]
        if missing or len(found) != wanted:
            raise SystemExit(f"of {wanted} models {len(found)} are known, {missing[:3]} not ready\n{stack.tails()}")
        for part in ("gateway", "envoy"):
            reserve(stack.pid(part) or 0, self.cores.front)
        for part in ("redis", "controller", "tf-serving", "torchserve"):
            pin(stack.pid(part) or 0, (self.cores.back,))
        here, metrics = stack.addresses, (stack.addresses.gateway_metrics,)
        gateway_pid, door = stack.pid("gateway") or 0, stack.pid("envoy") or 0
        self.targets[name] = Target(here.gateway, (gateway_pid,), metrics)
        self.targets[f"{name} and door"] = Target(here.gateway, (gateway_pid, door), metrics)
        print(f"{name}: {count} models are ready after {time.monotonic() - began:.0f} s", flush=True)
        return stack

    def start_main(self) -> Stack:
        """The stack most is measured on, and what stands beside it."""
        stack = self.main = self.start_stack("gateway")
        for kind, model in (("tf-serving", bodies.MODEL), ("torchserve", TORCH_MODEL)):
            staged = next((stack.scratch / "stage" / kind).glob(f"{model}--*"))
            self.servables[model] = staged.name.removesuffix(".mar")
        here = stack.addresses
        back = tuple(stack.pid(part) or 0 for part in ("tf-serving", "torchserve"))
        self.targets |= {
            "tf-serving grpc": Target(here.tf_serving, back[:1]),
            "tf-serving rest": Target(here.tf_serving_rest, back[:1]),
            "torchserve rest": Target(here.torchserve_rest, back[1:]),
            "redis": Target(here.redis, (stack.pid("redis") or 0,)),
        }
        self._put_into_redis(here.redis)
        self._start_baselines(stack)
        return stack

    def _put_into_redis(self, port: int) -> None:
        """A value as long as an answer."""
        value = bodies.grpc_answer()
        with socket.create_connection(("127.0.0.1", port), 10) as redis:
            command = b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n"
            redis.sendall(command % (len(bodies.REDIS_KEY), bodies.REDIS_KEY, len(value), value))
            assert redis.recv(64) == b"+OK\r\n"

    def _start_baselines(self, stack: Stack) -> None:
        here, grpc = stack.addresses, "application/grpc"
        ten = bodies.rows_of(10_000)
        listeners: dict[str, baselines.Listener] = {
            "envoy json": baselines.Direct(bodies.json_answer()),
            "envoy grpc": baselines.Direct(bodies.grpc_answer(), grpc),
            "envoy json 10k": baselines.Direct(bodies.json_answer(ten)),
            "envoy grpc 10k": baselines.Direct(bodies.grpc_answer(ten), grpc),
            "through tf grpc": baselines.Through(here.tf_serving, http2=True),
            "through tf rest": baselines.Through(here.tf_serving_rest),
            "through torchserve": baselines.Through(here.torchserve_rest),
        }
        pid, ports = self.opened.enter_context(baselines.envoys(self.scratch, listeners))
        reserve(pid, self.cores.front)
        self.targets |= {name: Target(port, (pid,)) for name, port in ports.items()}
        answers = bodies.json_answer(), bodies.grpc_answer()
        pid, port = self.opened.enter_context(baselines.echo(self.scratch, *answers))
        reserve(pid, self.cores.front)
        self.targets["echo"] = Target(port, (pid,))

    def lend(self, needs: tuple[str, ...]) -> None:
        """Starts what only some cases need, and stops what was needed before and is not now."""
        if needs == self._lent:
            return
        self._lending.close()
        self._lending = self.opened.enter_context(ExitStack())
        self._lent = needs
        for need in needs:
            self._lend(need, self._lending)

    def _lend(self, need: str, lent: ExitStack) -> None:
        here = self.main.addresses
        if need == "alone":
            server = f"127.0.0.1:{here.tf_serving}"
            self._start_gateway("gateway alone", lent, self.cores.front, PORTICO_MODEL_SERVER=server)
        elif need.startswith(CANNED):
            self._start_canned(lent, int(need.removeprefix(CANNED)))
        elif need == DEFAULT:
            self._start_gateway(DEFAULT, lent, self.cores.front, reserved=False)
            alone, door = self.targets[DEFAULT], self.targets["gateway and door"].front[1:]
            self.targets[f"{DEFAULT} and door"] = replace(alone, front=(*alone.front, *door))
        elif need == BUSY:
            spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            lent.callback(spinning.wait)
            lent.callback(spinning.kill)
            pin(spinning.pid, (self.cores.front,))
        elif need == "compact":
            self._start_compact("compact", lent)
        elif need == "gateways":
            self._start_gateway("second gateway", lent, self.cores.back)
            first, second = self.targets["gateway"], self.targets["second gateway"]
            self._start_edge("edge of 1", lent, [first], [self.cores.front])
            self._start_edge("edge of 2", lent, [first, second], [self.cores.front, self.cores.back])
        else:
            self.start_stack(need, int(need.split()[0]), lent)

    def _start_canned(self, lent: ExitStack, rows: int) -> None:
        """In the place of TF Serving a server that has its answer ready, so that what is in front is measured alone;
        and gateways that call it, by a door and without.
        """
        answers = bodies.binary_answer(rows), bodies.predict_answer(rows)
        pid, port = lent.enter_context(baselines.echo(self.scratch, *answers))
        pin(pid, (self.cores.back,))
        door, ports = lent.enter_context(baselines.envoys(self.scratch, {"door": baselines.Through(port, http2=True)}))
        reserve(door, self.cores.front)
        for name, server in (("canned, gateway", ports["door"]), ("canned, gateway alone", port)):
            self._start_gateway(name, lent, self.cores.front, PORTICO_MODEL_SERVER=f"127.0.0.1:{server}")
        behind_door = self.targets["canned, gateway"]
        self.targets |= {
            "canned": Target(port, (pid,)),
            "canned, through": Target(ports["door"], (door,)),
            "canned, gateway and door": replace(behind_door, front=(*behind_door.front, door)),
        }
        relay, relay_port = lent.enter_context(baselines.relay(self.scratch, port))
        reserve(relay, self.cores.front)
        self.targets["canned, relay"] = Target(relay_port, (relay,))
        self._start_compact("canned, compact", lent, port)

    def _start_gateway(
        self, name: str, lent: ExitStack, core: int, listens: int = 0, reserved: bool = True, **settings: str
    ) -> None:
        """Another beside that of the stack: the same Redis and, by the door or not, the same model servers. It listens
        at `listens` if its settings say so. If the core is not `reserved`, it runs as it does by default.
        """
        folder = self.scratch / name.replace(" ", "-")
        folder.mkdir(exist_ok=True)
        port, metrics = free_ports(2)
        port = listens or port
        addresses = replace(self.main.addresses, gateway=port, gateway_metrics=metrics)
        part = gateway(Surroundings(addresses, self.main.models, folder))
        part = replace(part, environment={**part.environment, **settings})
        environment = {key: value for key, value in os.environ.items() if key not in NOT_FOR_PARTS}
        environment["no_proxy"] = ",".join(filter(None, (environment.get("no_proxy"), "127.0.0.1,localhost")))
        process = PartProcess(part, folder / "gateway.log", environment)
        lent.callback(process.stop)
        process.start()
        process.wait_until_ready()
        pid = process.pid or 0
        if reserved and core == self.cores.front:
            reserve(pid, core)
        else:
            pin(pid, (core,))
        self.targets[name] = Target(port, (pid,), (metrics,))

    def _start_edge(self, name: str, lent: ExitStack, gateways: list[Target], cores: list[int]) -> None:
        """The stack's edge Envoy once more, in front of these gateways."""
        file, port, _ = self._edge_file(name, gateway=[target.port for target in gateways])
        command = baselines.envoy_command(file, len(cores))
        pid = lent.enter_context(baselines.running(command, file.with_suffix(".log"), port))
        if cores == [self.cores.front]:
            reserve(pid, self.cores.front)
        else:
            pin(pid, cores)
        front = (pid, *(pid for target in gateways for pid in target.front))
        self.targets[name] = Target(port, front, tuple(port for target in gateways for port in target.metrics))

    def _start_compact(self, name: str, lent: ExitStack, server: int = 0) -> None:
        """Edge and gateway in one process; `server` is the port of what takes TF Serving's place, if anything does."""
        file, port, model_servers = self._edge_file(name, **({"tf_serving": [server]} if server else {}))
        settings = {"PORTICO_EDGE": str(file), "PORTICO_MODEL_SERVER": f"127.0.0.1:{model_servers}"}
        self._start_gateway(name, lent, self.cores.front, port, **settings)

    def _edge_file(self, name: str, **clusters: list[int]) -> tuple[Path, int, int]:
        """The edge's configuration on ports of its own, with other servers in some of its clusters: (the file, the
        port for clients, the port of the model servers).
        """
        config = json.loads((self.main.scratch / "envoy" / "envoy.json").read_text())
        port, model_servers, admin = free_ports(3)
        place(config["admin"]["address"], admin)
        for listener in config["static_resources"]["listeners"]:
            place(listener["address"], port if listener["name"] == "clients" else model_servers)
        for cluster in config["static_resources"]["clusters"]:
            if servers := clusters.get(cluster["name"]):
                addresses = [{"socket_address": {"address": "127.0.0.1", "port_value": each}} for each in servers]
                endpoints = [{"endpoint": {"address": address}} for address in addresses]
                cluster["load_assignment"] = {
                    "cluster_name": cluster["name"],
                    "endpoints": [{"lb_endpoints": endpoints}],
                }
                if cluster.pop("eds_cluster_config", None):
                    cluster["type"] = "STATIC"
        file = self.scratch / f"{name.replace(' ', '-')}.json"
        file.write_text(json.dumps(config))
        return file, port, model_servers
