"""Writes requirements.lock: the exact versions that pip would install now for requirements.in.

`make lock` runs it with a Python of the version that will install the lock. pip resolves, because torch's CPU builds
are found through pip's own configuration. There are no hashes: torch has another file, with the same version, for each
kind of machine, so its local version (`+cpu`) is left out too.

    python lock.py [path of the lock]
"""

import json
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def resolve(requirements: Path) -> "dict[str, str]":
    """Asks pip what it would install into an empty environment: normalised name -> public version, torch's included."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    report = subprocess.run(
        [*command, "--report", "-", "--requirement", str(requirements)], check=True, stdout=subprocess.PIPE
    )
    packages = [entry["metadata"] for entry in json.loads(report.stdout)["install"]]
    return {re.sub(r"[-_.]+", "-", p["name"]).lower(): p["version"].partition("+")[0] for p in packages}


def main() -> None:
    """Resolves first and writes then, so that a failed resolution leaves the old lock as it is."""
    lock = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "requirements.lock"
    pins = resolve(HERE / "requirements.in")
    lines = ["# Made by `make lock` from requirements.in; do not edit.", *(f"{n}=={pins[n]}" for n in sorted(pins))]
    lock.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
