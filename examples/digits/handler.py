"""The TorchServe handler of the digits demo model: an image or a batch of images in, digits out.

TorchServe's worker loads it from `digits.mar`. It must define one class only (TorchServe picks the entry point by that)
and run on Python 3.9 (TorchServe's official image has that).

One request is a JSON image (8x8 nested, or 64 flat, of pixels 0..16), a JSON batch (n x 8 x 8 or n x 1 x 8 x 8), either
of them as the member `image` or `images` of an object, or the bytes of a PNG. Over REST, TorchServe has parsed JSON
already when its Content-Type says so; over gRPC and as a form field it comes as bytes.
"""

import io
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from ts.torch_handler.base_handler import BaseHandler
from ts.utils.util import PredictionException

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
SIDE = 8
INK = 16.0
LARGEST_PNG = 1024 * 1024
PARTS = ("data", "body", "image", "images", "instances", "input")
EXPECTED = "send an 8x8 image of pixels 0..16 as JSON, a batch of them (n x 8 x 8), or a PNG file"

Pixels = npt.NDArray[np.float32]


class DigitsHandler(BaseHandler):  # type: ignore[misc]  # TorchServe ships no types
    """Loads the network through BaseHandler.initialize and answers batches that TorchServe has put together."""

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[dict[str, Any]]:
        """One entry of `data` per request -> one answer per request.

        An image is answered with {"digit": int, "probabilities": [10 floats]}, a batch with a list in each member.

        Raises PredictionException (HTTP 400, gRPC INVALID_ARGUMENT) when the one request there is cannot be read. Among
        several requests only the bad one fails, with HTTP 400 and {"code", "type", "message"}; to a gRPC client
        TorchServe then delivers that body without an error status, because it has none per request.
        """
        answers: list[dict[str, Any]] = []
        for index, request in enumerate(data):
            context.set_response_content_type(index, "application/json")
            try:
                answers.append(self.answer(request))
            except ValueError as error:
                message = f"{error}; {EXPECTED}"
                if len(data) == 1:
                    raise PredictionException(message, 400) from None
                context.set_response_status(code=400, phrase="Bad Request", idx=index)
                answers.append({"code": 400, "type": "PredictionException", "message": message})
        return answers

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The prediction for one request; raises ValueError with what is wrong with it."""
        pixels, is_batch = read_pixels(request)
        with torch.inference_mode():
            probabilities = torch.softmax(self.model(torch.from_numpy(pixels).to(self.device)), dim=1).cpu()
        digits = probabilities.argmax(dim=1).tolist()
        rows = probabilities.tolist()
        return {"digit": digits, "probabilities": rows} if is_batch else {"digit": digits[0], "probabilities": rows[0]}


def read_pixels(request: dict[str, Any]) -> tuple[Pixels, bool]:
    """The request's parts -> FP32 [n,1,8,8] and whether it was a batch; raises ValueError for anything else."""
    names = [name for name in PARTS if name in request] or list(request)
    if len(names) != 1:
        raise ValueError(f"one input is expected, not {sorted(request)}")
    payload = request[names[0]]
    if isinstance(payload, (bytes, bytearray)):
        payload = bytes(payload)
        if payload.startswith(PNG_MAGIC):
            return read_png(payload), False
    if isinstance(payload, (bytes, str)):
        try:
            payload = json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise ValueError("the input is neither JSON nor a PNG") from error
    return read_json(payload)


def read_png(content: bytes) -> Pixels:
    """A PNG of any mode, bright ink on dark paper, scaled down if it is larger -> FP32 [1,1,8,8]."""
    try:
        image = Image.open(io.BytesIO(content), formats=["PNG"])
        if image.width * image.height > LARGEST_PNG:
            raise ValueError(f"the PNG has {image.width}x{image.height} pixels, more than {LARGEST_PNG}")
        grey = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    except (OSError, SyntaxError) as error:  # Pillow's two ways to say that a file is damaged
        raise ValueError("the PNG is damaged") from error
    return np.asarray(grey, dtype=np.float32).reshape(1, 1, SIDE, SIDE) * np.float32(INK / 255.0)


def read_json(value: Any) -> tuple[Pixels, bool]:
    """A parsed JSON value -> FP32 [n,1,8,8] and whether it was a batch; raises ValueError for anything else."""
    if isinstance(value, dict):
        names = [name for name in ("image", "images") if name in value]
        if len(names) != 1:
            raise ValueError(f"the JSON object needs one member 'image' or 'images', not {sorted(value)}")
        value = value[names[0]]
    try:
        numbers = np.asarray(value)
    except ValueError as error:
        raise ValueError("the JSON is not a rectangular list of numbers") from error
    if numbers.dtype.kind not in "iuf":
        raise ValueError("the JSON is not a list of numbers")
    if numbers.shape not in ((SIDE * SIDE,), (SIDE, SIDE)) and numbers.shape[1:] not in ((SIDE, SIDE), (1, SIDE, SIDE)):
        raise ValueError(f"the list has the shape {list(numbers.shape)}")
    if numbers.size == 0:
        raise ValueError("the batch is empty")
    if not ((numbers >= 0) & (numbers <= INK)).all():
        raise ValueError("a pixel is outside 0..16")
    return numbers.astype(np.float32).reshape(-1, 1, SIDE, SIDE), numbers.ndim > 2
