"""What a process in a container can do, and whom it can reach, asked from inside."""

import json
import re

import pytest
from composed import PROJECT, SERVICES, Composed

EVERY_SERVICE = pytest.mark.parametrize("service", SERVICES)
MANAGEMENT = (7071, 8081)
CONNECT = 'if timeout 1 bash -c "exec 3<>/dev/tcp/$1/$2" 2>/dev/null; then echo reached; else echo refused; fi'


def status(stack: Composed, service: str) -> dict[str, str]:
    """What the kernel says of a service's main process."""
    text = stack.bash(stack.containers(service)[0], 'while read -r line; do echo "$line"; done < /proc/1/status')
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


@EVERY_SERVICE
def test_nobody_is_root(stack: Composed, service: str) -> None:
    """No user and no group of the main process, real or not, is root's, and it has no capability nor may gain one."""
    found = status(stack, service)
    assert "0" not in found["Uid"].split() + found["Gid"].split() + found["Groups"].split()
    assert {int(found[kind], 16) for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert found["NoNewPrivs"] == "1"


@EVERY_SERVICE
def test_the_root_cannot_be_written(stack: Composed, service: str) -> None:
    """A file can be made neither in the image's root nor among its programs."""
    (container,) = stack.containers(service)[:1]
    for folder in ("/", "/usr/bin", "/etc"):
        assert stack.bash(container, 'echo x 2>/dev/null > "$1/made" || echo refused', folder) == "refused\n"
    (root,) = [line for line in stack.bash(container, MOUNTS).splitlines() if line.split()[1] == "/"]
    assert "ro" in root.split()[3].split(",")


MOUNTS = 'while read -r line; do echo "$line"; done < /proc/mounts'


@pytest.mark.parametrize("service", ["controller", "tf-serving", "torchserve"])
def test_the_models_cannot_be_written(stack: Composed, service: str) -> None:
    """Whoever reads the repository cannot change it."""
    (container,) = stack.containers(service)[:1]
    assert stack.bash(container, "echo x 2>/dev/null > /models/made || echo refused") == "refused\n"


@EVERY_SERVICE
def test_memory_processes_and_logs_are_bounded(stack: Composed, service: str) -> None:
    """The engine limits what a container takes."""
    (found,) = stack.inspected(stack.containers(service)[0])
    host = found["HostConfig"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "3", "max-size": "10m"}}


@EVERY_SERVICE
def test_only_envoy_has_a_way_out(stack: Composed, service: str) -> None:
    """All networks of the others are internal ones, which the engine routes nowhere; Envoy's is how clients come in."""
    names = [f"{PROJECT}_{name}" for name in stack.addresses(service)]
    networks = json.loads(stack.engine.docker("network", "inspect", *names))
    assert all(network["Internal"] for network in networks) == (service != "envoy")


def test_the_gateway_reaches_no_model_server_by_itself(stack: Composed) -> None:
    """A gateway cannot connect to anything in the networks of the model servers or of their management."""
    code = (
        "import socket, sys\n"
        "for address in sys.argv[2:]:\n"
        "    for port in map(int, sys.argv[1].split(',')):\n"
        "        with socket.socket() as one:\n"
        "            one.settimeout(0.3)\n"
        "            print(address, port, one.connect_ex((address, port)) == 0)\n"
    )
    everywhere = [*stack.addresses("torchserve").items(), *stack.addresses("tf-serving").items()]
    addresses = sorted({address for _, found in everywhere for address in found})
    assert len({network for network, _ in everywhere}) == 2
    ports = "7070,7071,8080,8081,8082,8500,8501"
    told = stack.execute(stack.containers("gateway")[0], "python", "-c", code, ports, *addresses).splitlines()
    assert len(told) == 7 * len(addresses)
    assert not [line for line in told if line.endswith("True")]
    (envoy,) = stack.addresses("envoy")["gateways"]
    assert stack.execute(stack.containers("gateway")[0], "python", "-c", code, "8500", envoy).endswith("True\n")


def test_management_answers_the_controller_alone(stack: Composed) -> None:
    """TorchServe's management answers in the network `control` only: not Envoy, which shares another with it."""
    torchserve = stack.addresses("torchserve")
    (envoy,) = stack.containers("envoy")
    for address in [*torchserve["servers"], *torchserve["control"]]:
        for port in MANAGEMENT:
            assert stack.execute(envoy, "bash", "-c", CONNECT, "bash", address, str(port)) == "refused\n"
    assert stack.execute(envoy, "bash", "-c", CONNECT, "bash", torchserve["servers"][0], "7070") == "reached\n"
    assert {name for name in SERVICES if "control" in stack.addresses(name)} == {"controller", "torchserve"}
    (controller,) = stack.containers("controller")
    code = f"import socket; socket.create_connection(('{torchserve['control'][0]}', 7071), 5); print('reached')"
    assert stack.execute(controller, "python", "-c", code) == "reached\n"


def test_clients_reach_the_door_alone(stack: Composed) -> None:
    """From the clients' network, neither management nor Redis nor Envoy's own administration answers; the door does."""
    (envoy,) = stack.addresses("envoy")["clients"]
    targets = [
        (address, port)
        for found in stack.addresses("torchserve").values()
        for address in found
        for port in (7071, 8081)
    ]
    targets += [(stack.addresses("redis")["cache"][0], 6379), (envoy, 9901), (envoy, 8080)]
    script = "; ".join(f"set -- {address} {port}; {CONNECT}" for address, port in targets)
    image = stack.inspected(stack.containers("envoy")[0])[0]["Image"]
    network = f"{PROJECT}_clients"
    told = stack.engine.docker("run", "--rm", "--network", network, "--entrypoint", "bash", image, "-c", script)
    assert told.split() == ["refused"] * (len(targets) - 1) + ["reached"]


@EVERY_SERVICE
def test_no_secret_can_be_seen_from_outside(stack: Composed, service: str) -> None:
    """Redis' password is in no environment, in no command line, and nowhere in what the engine tells of a container."""
    for container in stack.inspected(*stack.containers(service)):
        assert stack.password not in json.dumps(container)
        for file in ("environ", "cmdline"):
            told = stack.execute(container["Id"], "sh", "-c", READ, "sh", f"/proc/1/{file}")
            assert told
            assert stack.password not in told


READ = 'if command -v cat > /dev/null; then cat "$1"; else echo "$(< "$1")" 2> /dev/null; fi'


def test_redis_wants_the_password(stack: Composed) -> None:
    """Who has not read the file cannot talk to Redis."""
    (redis,) = stack.containers("redis")
    assert "NOAUTH" in stack.bash(redis, "redis-cli get x 2>&1 || true")
    assert re.fullmatch(
        r"\d+\n", stack.bash(redis, 'REDISCLI_AUTH="$(cat /run/secrets/redis_password)" redis-cli dbsize')
    )
