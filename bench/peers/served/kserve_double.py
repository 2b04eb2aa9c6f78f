"""KServe's custom predictor: y = 2x."""

import logging

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.utils.utils import generate_uuid


class Double(Model):
    """Doubles the first tensor."""

    def load(self) -> bool:
        """There is nothing to load."""
        self.ready = True
        return self.ready

    async def predict(self, payload: InferRequest, headers: dict | None = None) -> InferResponse:
        """As KServe's documentation has it."""
        values = 2 * payload.inputs[0].as_numpy()
        output = InferOutput("y", list(values.shape), "FP32")
        output.set_data_from_numpy(values, binary_data=payload.from_grpc)
        return InferResponse(payload.id or generate_uuid(), self.name, [output])


if __name__ == "__main__":
    model = Double("double")
    model.load()
    server = ModelServer(enable_latency_logging=False)
    logging.disable(logging.INFO)  # it has three lines per request
    server.start([model])
