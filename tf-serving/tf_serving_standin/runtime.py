"""Imports TensorFlow quickly and quietly, once, before anything that needs it.

Called by the command line; knows nothing of serving.
"""

import importlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_NOISE = (b"WARNING: All log messages before absl::InitializeLog()", b"I0000 ", b"cuda_platform.cc")


def import_tensorflow() -> None:
    """Import TensorFlow without Keras, which costs a quarter of the time and is not needed to run SavedModels."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    hidden = "keras" not in sys.modules
    if hidden:
        sys.modules["keras"] = None  # type: ignore[assignment]  # the documented way to make an import fail
    try:
        with quiet_stderr():
            tensorflow = importlib.import_module("tensorflow")
            # The first session looks for devices, and says so.
            tensorflow.compat.v1.Session(graph=tensorflow.Graph()).close()
    finally:
        if hidden:
            del sys.modules["keras"]
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back what native code writes to stderr, and pass on what is not known start-up noise."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            held.seek(0)
            for line in held:
                if not any(noise in line for noise in _NOISE):
                    os.write(2, line)
