"""The models of the cache's tests, what is asked of them, and what of that is kept."""

import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from door import Answer, Door, eventually
from probe_models import SavedModels
from redis import Redis
from swap_changes import at_once

from archives import pack
from portico.local.stack import Stack

HANDLERS = Path(__file__).parent / "handlers"
SECONDS = 120.0
SHARED = ("HIT", "COALESCED")
"""`x-cache` where no model was called: an answer that is just on its way to Redis is waited for."""
_numbers = itertools.count(1000)


def number() -> float:
    """One that no test has asked with."""
    return float(next(_numbers))


def new_log(folder: Path) -> Path:
    """A file in which a handler counts, that no other test has."""
    return folder / f"calls-{next(_numbers)}"


def calls(log: Path) -> int:
    """How often the handler was called."""
    return len(log.read_text().splitlines()) if log.exists() else 0


def put_pair(stack: Stack, made: SavedModels, name: str, contents: Mapping[int, int], policy: str = "") -> None:
    """A SavedModel of make_pair.py: {version: content}."""
    folder = stack.models / name
    folder.mkdir()
    if policy:
        (folder / "model.yaml").write_text(policy)
    for version, content in contents.items():
        at_once(folder / str(version), made.files(content))


def put_handler(stack: Stack, handler: str, name: str, scratch: Path, policy: str = "", content: int = 1) -> None:
    """An archive of a handler in handlers/, put in the place of what is there."""
    source = scratch / f"{handler}.py"
    source.write_text((HANDLERS / source.name).read_text().replace("CONTENT = 1\n", f"CONTENT = {content}\n"))
    if policy:
        (stack.models / f"{name}.yaml").write_text(policy)
    pack(source, stack.models / f"{name}.mar")


def remove(models: Path, name: str) -> None:
    """Whatever there is of a model."""
    for path in sorted([*models.glob(f"{name}.*"), *models.glob(f"{name}/**/*"), *models.glob(name)], reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


@contextmanager
def served(door: Door, *names: str) -> Iterator[None]:
    """Waits until the models are ready, and afterwards until nobody finds them."""

    def all_are(path: str, status: int) -> bool:
        return all(door.get(path.format(name)).status == status for name in names)

    eventually(lambda: all_are("/v2/models/{}/ready", 200), SECONDS, f"{names} are ready")
    yield
    eventually(lambda: all_are("/models/{}", 404), SECONDS, f"{names} are gone")


def pair(
    door: Door,
    model: str,
    a: list[float],
    b: list[float],
    *,
    path: str = "",
    shape: list[int] | None = None,
    swapped: bool = False,
    more: Mapping[str, Any] | None = None,
    **headers: str,
) -> Answer:
    """Asks a model of make_pair.py by Open Inference's JSON. `path` goes behind the model's name."""
    inputs = [
        {"name": name, "datatype": "FP32", "shape": shape or [len(data)], "data": data}
        for name, data in (("a", a), ("b", b))
    ]
    body = {"inputs": inputs[::-1] if swapped else inputs, **(more or {})}
    answer = door.post(f"/v2/models/{model}{path}/infer", body, **headers)
    assert answer.status == 200, answer
    return answer


def outputs(answer: Answer) -> dict[str, list[float]]:
    """The values of each output."""
    return {output["name"]: output["data"] for output in answer.json["outputs"]}


def counted(door: Door, model: str, asked: Mapping[str, Any], **headers: str) -> Answer:
    """Asks a model of handlers/counted.py, by TorchServe's API."""
    return door.post(f"/predictions/{model}", json.dumps(asked).encode(), content_type="text/plain", **headers)


def entries(redis: "Redis[bytes]", model: str) -> dict[bytes, bytes]:
    """What Redis keeps of a model."""
    return {key: redis.get(key) or b"" for key in redis.scan_iter(f"portico:cache:{model}:*", 1000)}


def truncated(value: bytes) -> Iterator[bytes]:
    """What is left of a value that was not written to its end."""
    for end in (0, 1, 20, len(value) // 2, len(value) - 1):
        yield value[:end]


def poisoned(value: bytes) -> Iterator[bytes]:
    """What somebody else wrote, another release did, or a bit that flipped in any of its parts."""
    yield from (b"not ours", b"\x00" * len(value), b"\x01" + value[1:], value + b"\x00")
    for place in (0, 3, 8, 30, len(value) - 2):
        yield value[:place] + bytes([value[place] ^ 0x40]) + value[place + 1 :]
