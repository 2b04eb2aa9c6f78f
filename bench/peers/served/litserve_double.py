"""LitServe's API: y = 2x. Called with the port. NumPy is not among its requirements."""

import sys

import litserve


class Double(litserve.LitAPI):
    """Doubles a list of numbers."""

    def setup(self, device: str) -> None:
        """There is nothing to load."""

    def decode_request(self, request: dict[str, list[float]]) -> list[float]:
        """As the documentation's examples do."""
        return request["x"]

    def predict(self, x: list[float]) -> list[float]:
        """In the worker."""
        return [2 * number for number in x]


if __name__ == "__main__":
    server = litserve.LitServer(Double(), accelerator="cpu", devices=1, workers_per_device=1)
    port = int(sys.argv[1])
    server.run("127.0.0.1", port, num_api_servers=1, log_level="warning", generate_client_file=False)
