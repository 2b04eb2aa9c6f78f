"""The gateway of a tutorial: FastAPI, httpx and Redis, one worker of uvicorn. The newest of each.

`start` takes `backend`, the address to send misses to, `{model}` in it being the model's name. Without it a model
server of a few lines is started, which makes misses as cheap as they can be. `redis` is a Redis that runs already.
"""

from pathlib import Path

from peers.call import LOOPBACK, open_inference_rest
from peers.peer import Ground, Packages, Peer, Server
from portico.local import layout, readiness
from portico.local.process import Part


def serve(ground: Ground) -> Server:
    """See the module's text."""
    redis_port, backend_port, *_ = ground.spare
    redis, backend = ground.given.get("redis"), ground.given.get("backend")
    behind: tuple[Part, ...] = ()
    if not redis:
        redis = f"redis://{LOOPBACK}:{redis_port}"
        behind += (redis_part(redis_port, ground.folder),)
    if not backend:
        backend = f"http://{LOOPBACK}:{backend_port}/v2/models/{{model}}/infer"
        behind += (
            Part(
                "tutorial-backend",
                uvicorn(ground, "tutorial_backend:app", backend_port),
                open_inference_rest(backend_port).answers,
            ),
        )
    return Server(
        uvicorn(ground, "tutorial_gateway:app", ground.rest),
        open_inference_rest(ground.rest),
        environment=(("REDIS_URL", redis), ("BACKEND_URL", backend)),
        behind=behind,
    )


def uvicorn(ground: Ground, app: str, port: int) -> tuple[str, ...]:
    """Serves it, with no line per request in the log."""
    options = f"--host {LOOPBACK} --port {port} --workers 1 --no-access-log"
    return (str(ground.python), "-m", "uvicorn", app, *options.split())


def redis_part(port: int, folder: Path) -> Part:
    """Redis as a cache, nothing on disk."""
    options = f"--bind {LOOPBACK} --port {port} --appendonly no --maxmemory 256mb --maxmemory-policy allkeys-lru"
    command = (layout.redis_server(), "--save", "", *options.split())
    return Part("tutorial-redis", command, lambda: readiness.redis_answers(port), folder=folder, ready_within=15)


PEER = Peer("tutorial", "FastAPI 0.165.0, httpx 0.28.1, redis 8.1.0", True, serve, Packages("tutorial", 11, 62))
