"""The command `tensorflow_model_server`: flags, logging, signals and exit codes.

Imports TensorFlow, and all that needs it, only once the flags are known to be right.
"""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from tf_serving_standin import __version__
from tf_serving_standin.flags import FlagError, Flags, parse_flags, usage
from tf_serving_standin.ports import taken_port
from tf_serving_standin.runtime import import_tensorflow

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the server until SIGTERM or SIGINT; exits 0, or 1 with the reason on stderr."""
    given = sys.argv[1:] if arguments is None else arguments
    if any(argument in ("--help", "-help", "-h") for argument in given):
        print(usage())
        sys.exit(0)
    try:
        flags = parse_flags(given)
    except FlagError as error:
        print(f"{error}\nRun with --help for all flags.", file=sys.stderr)
        sys.exit(1)
    complaint = None if flags.version else taken_port(flags.port, flags.rest_api_port)
    if complaint:
        print(complaint, file=sys.stderr)
        sys.exit(1)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname).1s %(message)s", force=True
    )
    import_tensorflow()
    code = _print_version() if flags.version else _serve(flags)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # A load that is still under way must not hold up the end, nor run on while TensorFlow is torn down.
    os._exit(code)


def _print_version() -> int:
    import tensorflow

    print(f"TensorFlow ModelServer: {tensorflow.__version__}+standin.{__version__}")
    print(f"TensorFlow Library: {tensorflow.__version__}")
    return 0


def _serve(flags: Flags) -> int:
    from tf_serving_standin.errors import ServingError
    from tf_serving_standin.server import ModelServer

    try:
        server = ModelServer(flags)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.request_stop())
        server.run()
    except (ServingError, FlagError) as error:
        _log.error("Failed to start server. Error: %s", error)
        return 1
    _log.info("Stopped.")
    return 0
