"""BentoML's service: y = 2x."""

import bentoml
import numpy as np


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Double:
    """Doubles a list of numbers."""

    @bentoml.api
    async def predict(self, x: np.ndarray) -> np.ndarray:
        """BentoML makes the array, and JSON of the result."""
        return 2 * x
