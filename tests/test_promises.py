"""What the README promises about the repository itself: its tree, its settings, its layers."""

import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from portico.settings import ControllerSettings, GatewaySettings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FIXED = ["protos", "gateway", "tf-serving", "torchserve", "model-repository", "envoy", "tests"]


def test_tree_is_the_disk() -> None:
    """Every entry of the README's tree is on the disk, and every folder on the disk is in the tree."""
    (tree,) = re.findall(r"^## Where things are\n\n```\n(.*?)^```", README, re.S | re.M)
    listed = {line.split()[0].rstrip("/") for line in tree.splitlines()}
    assert {name for name in listed if not (ROOT / name).exists()} == set()
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith((".", "__"))}
    assert folders - listed == set()
    assert set(FIXED) <= listed


@pytest.mark.parametrize("settings", [GatewaySettings, ControllerSettings])
def test_every_setting_is_documented(settings: type[BaseSettings]) -> None:
    """The README's tables hold each setting with its default and its description, word for word."""
    for name, field in settings.model_fields.items():
        row = f"| `PORTICO_{name.upper()}` | `{field.default}` | {field.description} |"
        assert row in README, f"the README's settings have no row\n{row}"


def test_no_setting_is_made_up() -> None:
    """Each PORTICO_ variable that the README names is a setting."""
    fields = {f"PORTICO_{name.upper()}" for s in (GatewaySettings, ControllerSettings) for name in s.model_fields}
    assert set(re.findall(r"PORTICO_[A-Z_]+[A-Z]", README)) <= fields
