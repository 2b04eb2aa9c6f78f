"""Where the calls on a model's page go, and the lines for a shell among them. Used by `calls`."""

import json
import shlex
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Caller:
    """Where calls go: `address` is "host:port" of the door, `version` empty for the default one."""

    address: str
    model: str
    version: str = ""
    scheme: str = "http"

    def curl(self, path: str, body: Any) -> str:
        """A POST of JSON."""
        if body is None:
            return ""
        text = shlex.quote(json.dumps(body, ensure_ascii=False))
        return f"curl -s {self._url(path)} \\\n  -H 'content-type: application/json' \\\n  -d {text}"

    def curl_file(self, path: str) -> str:
        """A POST of a file, as it is."""
        return f"curl -s {self._url(path)} \\\n  -H 'content-type: application/octet-stream' \\\n  --data-binary @input"

    def _url(self, path: str) -> str:
        return shlex.quote(f"{self.scheme}://{self.address}{path}")

    @property
    def v1(self) -> str:
        """Path of the model in TF Serving's API."""
        return f"/v1/models/{quote(self.model, safe='')}{self._named('/versions/')}"

    @property
    def v2(self) -> str:
        """Path of the model in the Open Inference Protocol."""
        return f"/v2/models/{quote(self.model, safe='')}{self._named('/versions/')}"

    @property
    def predictions(self) -> str:
        """Path of the model in TorchServe's API."""
        return f"/predictions/{quote(self.model, safe='')}{self._named('/')}"

    def _named(self, before: str) -> str:
        return before + quote(self.version, safe="") if self.version else ""
