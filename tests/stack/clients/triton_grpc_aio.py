"""tritonclient.grpc.aio. Called with host:port and a PNG; prints JSON."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import triton_calls as calls
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException


def given(name: str, values: "np.ndarray", datatype: str) -> InferInput:
    return InferInput(name, values.shape, datatype).set_data_from_numpy(values)


async def infer(client: InferenceServerClient) -> dict[str, object]:
    """Several calls at once."""
    names = ("probabilities", "species")
    rows = [given("measurements", calls.ROWS, "FP32")]
    calling = {"defaults": client.infer("iris", rows)}
    calling |= {name: client.infer("iris", rows, compression_algorithm=name) for name in ("gzip", "deflate")}
    results = await asyncio.gather(*calling.values())
    return {name: calls.shown(result, *names) for name, result in zip(calling, results, strict=True)}


async def streamed(client: InferenceServerClient) -> list[object]:
    """Species of one row each, or the error, in the order that they come."""

    async def requests() -> AsyncIterator[dict[str, object]]:
        for number in range(calls.STREAMED):
            row = calls.ROWS[number % 3 : number % 3 + 1]
            yield {
                "model_name": "absent" if number == calls.STREAMED // 2 else "iris",
                "inputs": [given("measurements", row, "FP32")],
                "request_id": str(number),
            }

    return [
        str(error.message()) if error else [result.get_response().id, *result.as_numpy("species").tolist()]
        async for result, error in client.stream_infer(requests())
    ]


async def strings(client: InferenceServerClient) -> dict[str, object]:
    """Texts, and an image, to a TorchServe handler."""
    outputs = [InferRequestedOutput("body")]
    raw = await client.infer("digits", [given("body", calls.image(), "BYTES")], outputs=outputs)
    return {
        "texts": calls.shown(await client.infer("shout", [given("text", calls.TEXTS, "BYTES")]), "output"),
        "image": calls.shown(await client.infer("digits", [given("image", calls.image(), "BYTES")]), "digit"),
        "body": calls.shown(raw, "body"),
    }


async def refused(client: InferenceServerClient) -> dict[str, object]:
    try:
        await client.infer("iriss", [given("measurements", calls.ROWS, "FP32")])
    except InferenceServerException as error:
        return {"model": calls.failure(error)}
    return {}


async def main() -> None:
    async with InferenceServerClient(calls.address()) as client:
        calls.tell(
            {
                "live": await client.is_server_live(),
                "ready": await client.is_server_ready(),
                "models": [await client.is_model_ready(*name) for name in (("iris",), ("iris", "1"), ("absent",))],
                "server": await client.get_server_metadata(as_json=True),
                "metadata": {name: await client.get_model_metadata(name, as_json=True) for name in ("iris", "digits")},
                "index": (await client.get_model_repository_index(as_json=True))["models"],
                "infer": await infer(client),
                "streamed": await streamed(client),
                "strings": await strings(client),
                "refused": await refused(client),
            }
        )


asyncio.run(main())
