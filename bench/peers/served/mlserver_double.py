"""MLServer's custom runtime: y = 2x."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Double(MLModel):
    """Doubles the first tensor."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Asked on a miss only."""
        values = NumpyCodec.decode_input(payload.inputs[0])
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", 2 * values)])
