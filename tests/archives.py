"""TorchServe archives of a handler alone, made as torch-model-archiver makes them. For tests that serve the handlers of
`examples/handlers`, or their own.
"""

import json
import zipfile
from pathlib import Path

HANDLERS = Path(__file__).resolve().parents[1] / "examples" / "handlers"


def pack(handler: Path, archive: Path, version: str = "1.0") -> None:
    """Writes `archive`, <model>.mar, aside and puts it in its place in one step."""
    model = {"modelName": archive.stem, "handler": handler.name, "modelVersion": version}
    manifest = {"createdOn": "01/01/1980 00:00:00", "runtime": "python", "model": model, "archiverVersion": "0.12.0"}
    aside = archive.with_name(f".{archive.name}.new")
    with zipfile.ZipFile(aside, "w") as packed:
        packed.write(handler, handler.name)
        packed.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
    aside.rename(archive)
