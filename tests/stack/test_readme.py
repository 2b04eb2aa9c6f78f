"""The README's commands do what it says: each block under "A first prediction" and "Add a model" is run as it is."""

import re
import subprocess
from pathlib import Path

import pytest
from door import Door

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SECTIONS = "".join(re.findall(r"^## (?:A first prediction|Add a model)\n.*?(?=^## )", README, re.S | re.M))
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(sh|python)\n(.*?)^```", SECTIONS, re.S | re.M)


def test_blocks_are_found() -> None:
    """There is something to run: curl, TF Serving's stubs and TorchServe's."""
    assert [language for language, _ in BLOCKS].count("python") == 2
    assert any("tensorflow_serving" in block for _, block in BLOCKS)
    assert any("curl" in block for _, block in BLOCKS)


@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_block(door: Door, tf_python: Path, index: int) -> None:
    """A block runs without an error and prints a prediction or a list of ready models."""
    language, block = BLOCKS[index]
    block = block.replace("127.0.0.1:8080", door.address)
    if language == "sh":
        command, text = ["bash", "-euo", "pipefail"], block
    else:
        python = tf_python if "tensorflow" in block else ROOT / ".venv/gateway/bin/python"
        command, text = [str(python), "-"], block
    ran = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert "error" not in ran.stdout.lower()
    assert re.search(r"0\.99|9\.94\d*e-01|\"digit\": ?7|READY", ran.stdout), ran.stdout
