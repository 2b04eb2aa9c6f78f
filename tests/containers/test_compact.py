"""docker-compose.yml with compose.compact.yml: edge and gateway in one container."""

import os
import secrets
from collections.abc import Iterator

import pytest
from composed import PROJECT, Composed, free_port
from door import Door, eventually
from engine import Engine
from test_at_rest import every_protocol_predicts

OWN_CORES = {"PORTICO_OWN_CORES": "true"}
ROW = [5.1, 3.5, 1.4, 0.2]


@pytest.fixture(scope="module")
def compact(engine: Engine, images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    """A stack of its own, beside the other one."""
    scratch, port = tmp_path_factory.mktemp("compact"), free_port(0)
    overlays = ("compose.compact.yml",)
    composed = Composed(engine, scratch, secrets.token_hex(16), port, overlays, f"{PROJECT}-compact", OWN_CORES)
    try:
        composed.up()
        yield composed
    except BaseException:
        print(composed.logs())
        raise
    finally:
        composed.down()


def test_no_envoy_is_needed(compact: Composed) -> None:
    """After `up --wait` all is healthy without a container of that service, and every protocol is answered."""
    assert compact.containers("envoy") == []
    assert compact.unhealthy() == []
    every_protocol_predicts(compact)


def test_its_cores_may_be_its_own(compact: Composed) -> None:
    """Without any capability, and under the engine's filter of system calls."""
    (gateway,) = compact.containers("gateway")
    assert policies(compact, gateway) == {os.SCHED_BATCH}


def policies(composed: Composed, container: str) -> set[int]:
    """How the threads of its main process are scheduled."""
    code = "import os; print(*{os.sched_getscheduler(int(task)) for task in os.listdir('/proc/1/task')})"
    return set(map(int, composed.execute(container, "python", "-c", code).split()))


def test_it_comes_back(compact: Composed) -> None:
    """Its process killed, the container is started again, and answers without anybody's help."""
    (gateway,) = compact.containers("gateway")
    compact.kill(gateway)

    def answers() -> bool:
        try:
            return Door(compact.port).infer("iris", "measurements", "FP32", ROW, [1, 4]).status == 200
        except OSError:
            return False

    eventually(answers, 15, "it answers again")
    eventually(lambda: compact.unhealthy() == [], 60, "all is healthy again")
