"""Models that answer with the number of their content, so that each answer tells which files it came from."""

import io
import json
import struct
import subprocess
import zipfile
from pathlib import Path

MARKER = 123456.789
"""What make_probe.py and make_pair.py put into the graph."""

HANDLER = """
def handle(data, context):
    return None if data is None else ["{content}"] * len(data)
"""


class SavedModels:
    """SavedModels of any content, from one that TensorFlow has made."""

    def __init__(self, python: Path, scratch: Path, script: str = "make_probe.py") -> None:
        command = [str(python), str(Path(__file__).parent / script), str(scratch)]
        subprocess.run(command, check=True, capture_output=True, timeout=240)
        files = (file for file in sorted(scratch.rglob("*")) if file.is_file())
        self._files = {file.relative_to(scratch).as_posix(): file.read_bytes() for file in files}
        marker = struct.pack("<f", MARKER)
        assert self._files["saved_model.pb"].count(marker) >= 1
        self._marker = marker

    def files(self, content: int) -> dict[str, bytes]:
        """The files of a SavedModel by their names relative to the version's folder, the variables last."""
        return {name: data.replace(self._marker, struct.pack("<f", content)) for name, data in self._files.items()}


def archive(content: int, version: str = "1.0") -> bytes:
    """A TorchServe archive."""
    packed = io.BytesIO()
    manifest = {"modelName": "probe", "modelVersion": version, "handler": "handler.py:handle"}
    with zipfile.ZipFile(packed, "w") as opened:
        opened.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "python", "model": manifest}))
        opened.writestr("handler.py", HANDLER.format(content=content))
        opened.writestr("ballast.bin", bytes(200_000))
    return packed.getvalue()
