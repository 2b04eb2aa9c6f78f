"""The links through which model servers find what they load."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from portico.controller.servable import Servable
from portico.controller.stage import Stage
from portico.routing import Server


def tf_servable(path: str = "iris/1", fingerprint: str = "a") -> Servable:
    """A SavedModel."""
    return Servable.of_files("iris", "1", Server.TF_SERVING, "1", path, fingerprint)


def archive(path: str = "digits.mar", fingerprint: str = "a") -> Servable:
    """An archive."""
    return Servable.of_files("digits", "1.0", Server.TORCHSERVE, "1.0", path, fingerprint)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A stage that does not exist yet."""
    return tmp_path / "stage"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model repository with two SavedModels and two archives."""
    for version in ("1", "2"):
        (tmp_path / "models/iris" / version).mkdir(parents=True)
        (tmp_path / "models/iris" / version / "saved_model.pb").write_text(version)
    (tmp_path / "models/faces/3").mkdir(parents=True)
    (tmp_path / "models/digits.mar").write_text("digits")
    (tmp_path / "models/faces/3/faces.mar").write_text("faces")
    return tmp_path / "models"


@pytest.fixture
def stage(folder: Path, repository: Path) -> Stage:
    """The stage as a controller has it."""
    return Stage(folder, repository)


def links(folder: Path) -> set[str]:
    """Everything that lies there and is no folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or path.is_file()}


def test_servers_find_the_files(stage: Stage, folder: Path) -> None:
    """TF Serving below the base path it is told, by version; TorchServe by the servable's name."""
    model, faces = tf_servable(), archive("faces/3/faces.mar")
    stage.put(model)
    stage.put(faces)
    assert stage.base_path(model.name) == str(folder / "tf-serving" / model.name)
    assert (folder / "tf-serving" / model.name / "1" / "saved_model.pb").read_text() == "1"
    assert (folder / "torchserve" / f"{faces.name}.mar").read_text() == "faces"
    assert links(folder) == {f"tf-serving/{model.name}/1", f"torchserve/{faces.name}.mar"}


def test_putting_twice_changes_nothing(stage: Stage, folder: Path) -> None:
    """A link that is right is not even touched."""
    for servable in (tf_servable(), archive()):
        stage.put(servable)
    before = {path: os.lstat(folder / path).st_ino for path in links(folder)}
    for servable in (tf_servable(), archive()):
        stage.put(servable)
    assert {path: os.lstat(folder / path).st_ino for path in links(folder)} == before


def test_a_link_to_other_files_is_replaced(stage: Stage, folder: Path) -> None:
    """The files of a servable were moved: its link leads to them, and nothing is left of the old one."""
    model = tf_servable("iris/1")
    stage.put(model)
    moved = Servable(**{**{name: getattr(model, name) for name in Servable.__slots__}, "path": "iris/2"})
    stage.put(moved)
    assert (folder / "tf-serving" / model.name / "1" / "saved_model.pb").read_text() == "2"
    assert links(folder) == {f"tf-serving/{model.name}/1"}


def without_path(servable: Servable) -> Servable:
    """The servable as a route names it."""
    return Servable(
        servable.name,
        servable.model,
        servable.version,
        servable.server,
        servable.servable_version,
        "",
        servable.fingerprint,
    )


def test_what_has_no_path_keeps_its_link(stage: Stage, folder: Path) -> None:
    """Who knows a servable from a route only does not know where its files are; the link does."""
    for servable in (tf_servable(), archive()):
        stage.put(servable)
        stage.put(without_path(servable))
    assert (folder / "tf-serving" / tf_servable().name / "1" / "saved_model.pb").read_text() == "1"
    assert (folder / "torchserve" / f"{archive().name}.mar").read_text() == "digits"


def test_what_has_neither_path_nor_link_gets_one_that_leads_nowhere(stage: Stage, folder: Path) -> None:
    """TF Serving needs the base path of all that it lists; TorchServe needs nothing."""
    stage.put(without_path(tf_servable()))
    stage.put(without_path(archive()))
    (link,) = links(folder)
    assert link == f"tf-serving/{tf_servable().name}/1"
    assert not (folder / link).exists()
    stage.put(tf_servable())
    assert (folder / link / "saved_model.pb").read_text() == "1"


def test_a_new_controller_sees_what_is_linked(stage: Stage, folder: Path, repository: Path) -> None:
    """With the names, models and versions that TF Serving is asked with; paths are not told."""
    for servable in (tf_servable(), archive()):
        stage.put(servable)
    known = {servable.name: servable for servable in Stage(folder, repository).known()}
    assert set(known) == {tf_servable().name, archive().name}
    found = known[tf_servable().name]
    assert (found.model, found.server, found.servable_version, found.path) == ("iris", Server.TF_SERVING, "1", "")
    found = known[archive().name]
    assert (found.model, found.server, found.path) == ("digits", Server.TORCHSERVE, "")


def test_a_model_s_name_may_hold_what_separates(stage: Stage, folder: Path, repository: Path) -> None:
    """The model is what stands before the last `--`."""
    odd = Servable.of_files("a-b.c", "7", Server.TF_SERVING, "7", "iris/1", "a")
    odder = Servable("x--y--0123456789ab", "x--y", "1", Server.TF_SERVING, "1", "iris/1", "")
    stage.put(odd)
    stage.put(odder)
    assert {(each.name, each.model) for each in Stage(folder, repository).known()} == {
        (odd.name, "a-b.c"),
        (odder.name, "x--y"),
    }


def test_what_was_put_is_known_at_once(stage: Stage) -> None:
    """And what is not kept is not known any more."""
    assert stage.known() == []
    stage.put(tf_servable())
    stage.put(archive())
    assert {servable.name for servable in stage.known()} == {tf_servable().name, archive().name}
    stage.keep({archive().name})
    assert [servable.name for servable in stage.known()] == [archive().name]


def test_only_what_is_kept_stays(stage: Stage, folder: Path, repository: Path) -> None:
    """The links of a controller before this one go like its own; files in the repository never do."""
    for servable in (tf_servable(), archive()):
        stage.put(servable)
    later = Stage(folder, repository)
    stays = tf_servable("iris/2", "b")
    later.put(stays)
    later.keep({stays.name})
    assert links(folder) == {f"tf-serving/{stays.name}/1"}
    assert os.listdir(folder / "tf-serving") == [stays.name]
    assert links(repository) == {"iris/1/saved_model.pb", "iris/2/saved_model.pb", "digits.mar", "faces/3/faces.mar"}


def test_what_was_interrupted_is_cleared(stage: Stage, folder: Path, repository: Path) -> None:
    """A controller died between two steps of linking: what it had made is in nobody's way, and goes."""
    stage.prepare()
    name = tf_servable().name
    (folder / "tf-serving" / f".{name}.new").symlink_to("anywhere")
    (folder / "torchserve" / f".{archive().name}.new").symlink_to("anywhere")
    (folder / "tf-serving" / name).mkdir()
    assert stage.known() == []
    stage.put(tf_servable())
    stage.keep({name})
    assert links(folder) == {f"tf-serving/{name}/1"}
    (folder / "tf-serving" / archive().name).mkdir()
    Stage(folder, repository).keep({name})
    assert os.listdir(folder / "tf-serving") == [name]


def test_foreign_things_are_left_alone(stage: Stage, folder: Path) -> None:
    """What is not named like a servable is none of ours, nor what somebody put beside a link."""
    stage.prepare()
    (folder / "tf-serving" / "notes").mkdir()
    (folder / "torchserve" / "own.mar").write_text("own")
    (folder / "torchserve" / archive().name).write_text("no link")
    stage.put(tf_servable())
    (folder / "tf-serving" / tf_servable().name / "README").write_text("read")
    assert [servable.name for servable in stage.known()] == [tf_servable().name]
    stage.keep(())
    assert (folder / "tf-serving" / "notes").is_dir()
    assert links(folder) == {
        "torchserve/own.mar",
        f"torchserve/{archive().name}",
        f"tf-serving/{tf_servable().name}/README",
    }


@pytest.fixture
def strict_umask() -> Iterator[None]:
    """A user whose files nobody else may read."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_servers_of_other_users_may_read_it(strict_umask: None, stage: Stage, folder: Path) -> None:
    """Whatever the controller's umask is."""
    stage.prepare()
    stage.put(tf_servable())
    made = [folder, folder / "tf-serving", folder / "torchserve", folder / "tf-serving" / tf_servable().name]
    assert {path.stat().st_mode & 0o777 for path in made} == {0o755}


def test_a_stage_that_cannot_be_used_says_what_to_do(tmp_path: Path, repository: Path) -> None:
    """It is found at the start, and the reason names the folder and the setting."""
    (tmp_path / "file").write_text("")
    stage = Stage(tmp_path / "file", repository)
    for use in (stage.prepare, lambda: stage.put(tf_servable())):
        with pytest.raises(OSError, match=rf"stage cannot be used.*{tmp_path / 'file'} \(PORTICO_STAGE\)"):
            use()


def test_the_folder_is_read_once(stage: Stage, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The controller asks in every round, also with thousands of models."""
    stage.put(tf_servable())
    stage.keep({tf_servable().name})
    monkeypatch.setattr(os, "scandir", None)
    assert len(stage.known()) == 1
    stage.keep({tf_servable().name})
    stage.keep(())
    assert stage.known() == []
