"""Generating the protobuf modules."""

from pathlib import Path

import pytest

from portico.local.stubs import PACKAGE, GenerationFailed, generate

DEFINITION = 'syntax = "proto3";\npackage ours;\nmessage Thing { string name = 1; }\n'


@pytest.fixture
def protos(tmp_path: Path) -> Path:
    """A folder with one definition."""
    (tmp_path / "protos" / PACKAGE).mkdir(parents=True)
    (tmp_path / "protos" / PACKAGE / "thing.proto").write_text(DEFINITION)
    return tmp_path / "protos"


def test_modules_and_their_types_are_generated_once(protos: Path, tmp_path: Path) -> None:
    """The first call writes them, the second has nothing to do."""
    assert generate(protos, tmp_path)
    assert sorted(path.name for path in (tmp_path / PACKAGE).glob("*_pb2*")) == ["thing_pb2.py", "thing_pb2.pyi"]
    assert not generate(protos, tmp_path)


def test_a_change_is_generated_and_what_is_gone_is_removed(protos: Path, tmp_path: Path) -> None:
    """A definition that changes, is deleted or is lost in its generated form leads to new modules."""
    generate(protos, tmp_path)
    definition = protos / PACKAGE / "thing.proto"
    definition.write_text(DEFINITION.replace("name", "title"))
    assert generate(protos, tmp_path)
    assert "title" in (tmp_path / PACKAGE / "thing_pb2.pyi").read_text()
    definition.rename(definition.with_name("other.proto"))
    assert generate(protos, tmp_path)
    assert not (tmp_path / PACKAGE / "thing_pb2.py").exists()
    (tmp_path / PACKAGE / "other_pb2.pyi").unlink()
    assert generate(protos, tmp_path)


def test_a_wrong_definition_is_shown_with_its_line(protos: Path, tmp_path: Path) -> None:
    """protoc's own words reach whoever edits protos/, and the modules that were there stay."""
    generate(protos, tmp_path)
    (protos / PACKAGE / "thing.proto").write_text(DEFINITION.replace("string name = 1", "strin name = 1"))
    with pytest.raises(GenerationFailed, match=r"thing\.proto:3"):
        generate(protos, tmp_path)
    assert (tmp_path / PACKAGE / "thing_pb2.py").exists()
