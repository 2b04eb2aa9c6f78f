"""The commands: the processes of the stack, `portico gateway` and `portico controller`, the stack as a whole, `portico
local`, and what people ask it for, `portico models`, `portico cache` and `portico schema`.
"""

import argparse
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from portico import __version__
from portico.settings import ControllerSettings, GatewaySettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="portico", description="One door to TF Serving and TorchServe.")
    parser.add_argument("--version", action="version", version=f"portico {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("gateway", help="serve clients: REST and gRPC on one port (settings: PORTICO_…)")
    commands.add_parser("controller", help="keep the model servers serving what lies in the repository")
    commands.add_parser("local", help="run the whole stack without containers", add_help=False)
    commands.add_parser("models", help="list every model and version with its state", add_help=False)
    commands.add_parser("cache", help="what the response cache holds; forget a model's answers", add_help=False)
    commands.add_parser("schema", help="print the JSON Schema of a model's policy, model.yaml")
    known, rest = parser.parse_known_args(arguments)
    if rest and known.command not in ("local", "models", "cache"):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return _run(known, rest)
    except ValidationError as error:
        print(_explained(error), file=sys.stderr)
        return 2


def _run(known: argparse.Namespace, rest: list[str]) -> int:
    """Imports a command's modules only when it runs: none has a use for the others'."""
    if known.command == "gateway":
        from portico.edges.pyvoy import keep_the_cores, serve

        settings = GatewaySettings()
        if settings.own_cores:
            keep_the_cores()
        serve("portico.asgi:app", settings.host, settings.port, settings.max_message_bytes, settings.edge)
    if known.command == "controller":
        from portico import bootstrap

        return bootstrap.run_controller(ControllerSettings())
    if known.command == "models":
        from portico.models_command import main as models

        return models(rest)
    if known.command == "cache":
        from portico.cache_command import main as cache

        return cache(rest)
    if known.command == "schema":
        from portico.controller.policy_file import schema_text

        print(schema_text(), end="")
        return 0
    from portico.local.command import main as local

    return local(rest)


def _explained(error: ValidationError) -> str:
    """What is wrong with which setting, a line each."""
    lines = ["These settings are not valid:"]
    for wrong in error.errors():
        name = "_".join(map(str, wrong["loc"])).upper()
        given = "" if name == "REDIS_URL" else f" (given: {wrong['input']!r})"  # a URL may hold a password
        lines.append(f"  PORTICO_{name}: {wrong['msg'].removeprefix('Value error, ')}{given}")
    return "\n".join(lines)
