"""Triton's Python model: y = 2x."""

import triton_python_backend_utils as triton


class TritonPythonModel:
    """What the Python backend looks for."""

    def execute(self, requests: list) -> list:
        """One response per request."""
        return [triton.InferenceResponse([triton.Tensor("y", 2 * values(request))]) for request in requests]


def values(request: object) -> object:
    """Its input, as a NumPy array."""
    return triton.get_input_tensor_by_name(request, "x").as_numpy()
