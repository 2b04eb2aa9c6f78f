"""Generates the protobuf modules in `portico/wire` from `protos/`, when those have changed.

Called by `portico.local.__main__`. They are neither committed nor edited.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from portico.local import layout

PROTOC = layout.PROGRAMS / "bin" / "protoc"
PACKAGE = Path("portico/wire")


class GenerationFailed(Exception):
    """protoc did not take a definition; the text is what it said."""


def generate(
    protos: Path = layout.ROOT / "protos", into: Path = layout.ROOT / "gateway", protoc: Path = PROTOC
) -> bool:
    """Brings the modules up to date; whether there was anything to do. Raises GenerationFailed."""
    definitions = sorted((protos / PACKAGE).glob("*.proto"))
    stamp, digest = into / PACKAGE / ".stamp", digest_of(definitions, protoc)
    generated = [into / PACKAGE / f"{path.stem}_pb2{ending}" for path in definitions for ending in (".py", ".pyi")]
    if all(path.exists() for path in generated) and stamp.exists() and stamp.read_text() == digest:
        return False
    with tempfile.TemporaryDirectory() as folder:
        command = [str(protoc), f"-I{protos}", f"--python_out={folder}", f"--pyi_out={folder}", *map(str, definitions)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise GenerationFailed(f"protoc did not take the definitions in {layout.shown(protos)}:\n{done.stderr}")
        (into / PACKAGE).mkdir(parents=True, exist_ok=True)
        stamp.unlink(missing_ok=True)
        for stale in (into / PACKAGE).glob("*_pb2.py*"):
            stale.unlink()
        for path in generated:
            shutil.move(Path(folder) / PACKAGE / path.name, path)
    stamp.write_text(digest)
    return True


def digest_of(definitions: list[Path], protoc: Path) -> str:
    """Changes with any definition, its name, and the compiler."""
    digest = hashlib.sha256()
    for path in [protoc, *definitions]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
