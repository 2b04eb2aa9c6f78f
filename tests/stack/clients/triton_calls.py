"""What the four tritonclient scripts ask and print, the same in each."""

import json
import sys
from typing import Any

import numpy as np

ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [6.2, 2.9, 4.3, 1.3], [7.7, 3.0, 6.1, 2.3]], np.float32)
EMPTY = np.zeros((0, 4), np.float32)
TEXTS = np.array([["grün".encode(), b"b"], [b"", b"d"]], np.object_)
STREAMED = 20
"""Requests on a stream, of which that in the middle is for a model that is not there."""


def address() -> str:
    return sys.argv[1]


def image() -> "np.ndarray[Any, Any]":
    """The bytes of a PNG, BYTES [1]."""
    with open(sys.argv[2], "rb") as file:
        return np.array([file.read()], np.object_)


def shown(result: Any, *names: str) -> dict[str, Any]:
    """The outputs of an InferResult as JSON: datatype, shape, values."""
    return {name: array(result.as_numpy(name)) for name in names}


def array(values: "np.ndarray[Any, Any]") -> dict[str, Any]:
    kind = "bytes" if values.dtype.kind in "OSU" else values.dtype.name
    flat = [value.decode() if isinstance(value, bytes) else value for value in values.ravel().tolist()]
    return {"dtype": kind, "shape": list(values.shape), "values": flat}


def failure(error: Any) -> dict[str, str]:
    """An InferenceServerException."""
    return {"status": str(error.status()), "message": str(error.message())}


def tell(told: dict[str, Any]) -> None:
    print(json.dumps(told))
