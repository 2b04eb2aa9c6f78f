"""The command `portico local`: starts the stack, waits for the models, shows the demo, and serves until it is stopped.

Called by `portico.cli`; `make run` gets here through `portico.local.prepare`.
"""

import argparse
import functools
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from portico.local import demo, layout
from portico.local.addresses import LOOPBACK, USUAL, Addresses
from portico.local.board import Board, Paint
from portico.local.process import PartFailed
from portico.local.stack import Stack
from portico.models_table import Entry, table

DEMO_REPOSITORY = layout.ROOT / "model-repository"
STDOUT = 1
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: list[str] | None = None) -> int:
    """Runs until Ctrl-C, SIGTERM or SIGHUP; 0 then, 1 when a part did not start."""
    parser = argparse.ArgumentParser(prog="portico local", description="The stack without containers, on loopback.")
    parser.add_argument("--port", type=int, default=8080, help="the port for clients, REST and gRPC alike")
    parser.add_argument("--models", type=Path, default=DEMO_REPOSITORY, help="the model repository")
    parser.add_argument("--replicas", type=int, default=1, help="how many of each model server")
    parser.add_argument("--apart", action="store_true", help="an Envoy in front of the gateway, as in containers")
    parser.add_argument("--no-demo", action="store_true", help="serve only")
    options = parser.parse_args(arguments)
    for number in STOPPING:
        signal.signal(number, interrupt)
    try:
        tell = functools.partial(show_part, board := Board())
        stack = Stack(options.models, options.port, say, tell, options.replicas, usual=USUAL, compact=not options.apart)
        serve(stack, board, with_demo=not options.no_demo)
    except PartFailed as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped, nothing is left running.", flush=True)
    return 0


def interrupt(number: int, _frame: FrameType | None) -> None:
    """The first signal ends the serving; stopping takes seconds, and a second one must not cut it short."""
    for other in STOPPING:
        signal.signal(other, lambda number, frame: say_at_once("Still stopping …\n"))
    say_at_once(f"\nStopping ({signal.Signals(number).name}) …\n")
    raise KeyboardInterrupt


def say_at_once(text: str) -> None:
    """For handlers of signals: one may come while `print` writes, which fails if it is called again then."""
    with suppress(OSError):
        os.write(STDOUT, text.encode())


def serve(stack: Stack, board: Board, with_demo: bool) -> None:
    """Starts and serves until interrupted. Raises PartFailed."""
    began = time.monotonic()
    print(f"Starting Portico with the models in {layout.shown(stack.models)}. Logs: {stack.scratch}", flush=True)
    with stack:
        board.state("models", "loading")
        models = stack.wait_for_models(tell=lambda models: show_models(board, models))
        board.done("models", f"{sum(model.ready for model in models)} of {len(models)} ready")
        board.close()
        print(f"  Ready after {time.monotonic() - began:.1f} s.\n\n{table(models, Paint(sys.stdout))}", flush=True)
        if with_demo and stack.models == DEMO_REPOSITORY:
            demo.show(stack.addresses.clients, {model.name for model in models if model.ready})
        print(for_operators(stack.addresses))
        print(f"Serving on {stack.url} (REST and gRPC)  Ctrl-C stops", flush=True)
        threading.Event().wait()


def for_operators(addresses: Addresses) -> str:
    """Where they find metrics, and the cache."""
    controller, gateway = (f"http://{LOOPBACK}:{port}" for port in (addresses.operators, addresses.gateway_metrics))
    cache = f"{layout.shown(layout.GATEWAY_PYTHON)} -m portico cache stats"
    if addresses.operators != USUAL["operators"]:  # where the command looks by itself
        cache += f" --url {controller}"
    return f"Metrics: {controller}/metrics (controller), {gateway}/metrics (gateway)\nCache: {cache}"


def show_part(board: Board, name: str, state: str) -> None:
    """How far the processes are."""
    if state == "ready":
        board.done(name, state)
    elif name:
        board.state(name, state)
    board.draw()


def show_models(board: Board, models: list[Entry]) -> None:
    """How far the models are."""
    states = ", ".join(f"{model.name} {model.state.lower()}" for model in models)
    board.state("models", states or "loading")
    board.draw()


def say(news: str) -> None:
    """What happens while it serves."""
    print(f"{time.strftime('%H:%M:%S')} {news}", flush=True)
