"""tritonclient.http.aio. Called with host:port and a PNG; prints JSON."""

import asyncio

import numpy as np
import triton_calls as calls
from tritonclient.http import InferInput, InferRequestedOutput
from tritonclient.http.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException


def given(name: str, values: "np.ndarray", datatype: str, binary: bool = True) -> InferInput:
    return InferInput(name, values.shape, datatype).set_data_from_numpy(values, binary_data=binary)


async def infer(client: InferenceServerClient) -> dict[str, object]:
    """Several calls at once, every way to send a tensor and to get one."""
    names = ("probabilities", "species")
    calling = {"defaults": client.infer("iris", [given("measurements", calls.ROWS, "FP32")])}
    for binary_in in (True, False):
        for binary_out in (True, False):
            outputs = [InferRequestedOutput(name, binary_data=binary_out) for name in names]
            inputs = [given("measurements", calls.ROWS, "FP32", binary_in)]
            calling[f"in {binary_in} out {binary_out}"] = client.infer("iris", inputs, outputs=outputs)
    for algorithm in ("gzip", "deflate"):
        inputs = [given("measurements", calls.ROWS, "FP32")]
        calling[algorithm] = client.infer("iris", inputs, request_compression_algorithm=algorithm)
    results = await asyncio.gather(*calling.values())
    return {name: calls.shown(result, *names) for name, result in zip(calling, results, strict=True)}


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
                "server": await client.get_server_metadata(),
                "metadata": {name: await client.get_model_metadata(name) for name in ("iris", "digits")},
                "index": await client.get_model_repository_index(),
                "infer": await infer(client),
                "strings": await strings(client),
                "refused": await refused(client),
            }
        )


asyncio.run(main())
