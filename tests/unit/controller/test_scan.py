"""`scan`: what a folder of files means, and what is said of files that mean nothing."""

import errno
import os
import socket
from pathlib import Path

import pytest

from portico.controller import tree
from portico.controller.inventory import FoundVersion, Listing
from portico.controller.scan import scan
from portico.routing import Server


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    root.mkdir()
    return root


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def versions(listing: Listing, model: str) -> dict[str, FoundVersion]:
    return {version.version: version for version in listing.models[model].versions}


def problem(listing: Listing, model: str) -> str:
    found = listing.models[model]
    return found.problem or "; ".join(version.problem for version in found.versions)


def test_numbered_folders_with_a_saved_model_are_tf_serving_versions(repository: Path) -> None:
    """A numbered folder is a version, oldest first by number and not by letter, with the stamps of all its files."""
    for number in ("2", "10", "1"):
        put(repository / "iris" / number / "saved_model.pb")
    put(repository / "iris/10/variables/variables.index")
    found = scan(repository).models["iris"]
    assert [version.version for version in found.versions] == ["1", "2", "10"]
    newest = found.versions[-1]
    assert (newest.server, newest.path) == (Server.TF_SERVING, "iris/10")
    assert [name for name, *_ in newest.files] == ["saved_model.pb", "variables/variables.index"]


def test_an_archive_at_the_root_is_a_torchserve_model(repository: Path) -> None:
    """The model's name is the archive's, its version is not known without opening it."""
    put(repository / "digits.mar")
    (found,) = scan(repository).models["digits"].versions
    assert (found.version, found.server, found.path) == ("", Server.TORCHSERVE, "digits.mar")


def test_archives_in_folders_are_torchserve_versions(repository: Path) -> None:
    """An archive's name does not matter in a folder, which may have any version's name."""
    put(repository / "faces/1.9/whatever.mar")
    put(repository / "faces/1.10/faces.mar")
    found = scan(repository).models["faces"].versions
    assert [version.version for version in found] == ["1.9", "1.10"]
    assert found[0].path == "faces/1.9/whatever.mar"


@pytest.mark.parametrize(
    "name", ["README.md", ".hidden", ".digits.mar.k3j2", "digits.mar.tmp", "digits.mar.part", "model~", "digits.yaml"]
)
def test_what_is_no_model_is_ignored(repository: Path, name: str) -> None:
    """Notes, hidden files and the temporary files of copying programs are not listed."""
    put(repository / name)
    assert scan(repository).models == {}


def test_hidden_and_temporary_files_in_a_model_are_ignored(repository: Path) -> None:
    """A version that is being copied under a temporary name is not there yet."""
    put(repository / "iris/1/saved_model.pb")
    put(repository / "iris/.2.tmp123/saved_model.pb")
    put(repository / "iris/3.part/saved_model.pb")
    put(repository / "iris/notes.txt")
    put(repository / "iris/docs/readme")
    assert list(versions(scan(repository), "iris")) == ["1"]


@pytest.mark.parametrize("name", ["a--b", "-a", "_a", "a b", "ä", "a" * 128, "a/b".replace("/", "\\"), "a..b"])
def test_an_illegal_name_is_listed_with_the_rule(repository: Path, name: str) -> None:
    """A name that no server or address could carry is refused, whatever lies there."""
    put(repository / name / "1/saved_model.pb")
    put(repository / f"{name}x.mar")
    listing = scan(repository)
    assert len(listing.models) == 2
    assert all("illegal name" in found.problem for found in listing.models.values())


def test_a_name_that_is_no_text_is_listed(repository: Path) -> None:
    """A name that is not UTF-8 is shown in a form that can be printed."""
    os.mkdir(os.fsencode(repository) + b"/caf\xe9")
    (name,) = scan(repository).models
    assert name.encode() == b"caf\\udce9"


def test_two_sources_for_one_name_are_refused(repository: Path) -> None:
    """A folder and an archive of the same name: neither is guessed to be meant."""
    put(repository / "iris/1/saved_model.pb")
    put(repository / "iris.mar")
    found = scan(repository).models["iris"]
    assert "two sources" in found.problem
    assert found.versions == ()


@pytest.mark.parametrize("number", ["0", "007", "-1", "v2", "9223372036854775808", "1.5"])
def test_a_saved_model_needs_a_number_that_tf_serving_takes(repository: Path, number: str) -> None:
    """A folder that TF Serving would not take, or take for another number, is refused alone."""
    put(repository / "iris/1/saved_model.pb")
    put(repository / "iris" / number / "saved_model.pb")
    found = versions(scan(repository), "iris")
    assert "no version" in found[number].problem
    assert found["1"].problem == ""


def test_a_numbered_folder_without_a_model_is_listed(repository: Path) -> None:
    """A version whose main file is not there says what is missing."""
    put(repository / "iris/1/saved_model.pb")
    put(repository / "iris/2/variables/variables.index")
    assert "neither saved_model.pb nor" in versions(scan(repository), "iris")["2"].problem


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (["iris/saved_model.pb"], "move it into one for its version"),
        (["iris/iris.mar"], "move it into one for its version"),
        (["iris/notes.txt"], "holds no version"),
        (["iris/1/saved_model.pb", "iris/2/iris.mar"], "under one name"),
        (["iris/1/saved_model.pb", "iris/1/iris.mar"], "keep one of them"),
        (["iris/1/a.mar", "iris/1/b.mar"], "keep one of them"),
        (["iris.mar/1/saved_model.pb"], "named like an archive"),
    ],
)
def test_a_folder_that_means_nothing_says_why(repository: Path, files: list[str], reason: str) -> None:
    """What is wrong with a model's folder is in the listing, and what to do about it."""
    for file in files:
        put(repository / file)
    assert reason in problem(scan(repository), "iris")


def test_one_bad_model_harms_no_other(repository: Path) -> None:
    """Good models are found beside any number of bad ones."""
    put(repository / "good/1/saved_model.pb")
    put(repository / "bad--name/1/saved_model.pb")
    put(repository / "empty/notes")
    (repository / "loop").symlink_to("loop")
    listing = scan(repository)
    assert {name for name, found in listing.models.items() if not found.problem} == {"good"}


def test_a_link_inside_the_repository_is_followed(repository: Path) -> None:
    """A version may be a symbolic link; flipping it changes the stamps."""
    put(repository / "iris/.builds/a/saved_model.pb", b"a")
    put(repository / "iris/.builds/b/saved_model.pb", b"b")
    link = repository / "iris/1"
    link.symlink_to(".builds/a")
    before = versions(scan(repository), "iris")["1"].files
    link.unlink()
    link.symlink_to(".builds/b")
    assert versions(scan(repository), "iris")["1"].files != before


@pytest.mark.parametrize(
    ("link", "target", "reason"),
    [
        ("out", "../outside", "out of the repository"),
        ("out.mar", "../outside/secret.mar", "out of the repository"),
        ("iris/2", "../../outside", "out of the repository"),
        ("iris/1/assets", "../../../outside", "out of the repository"),
        ("iris/1/gone", "nowhere", "leads nowhere"),
        ("iris/1/again", "..", "back to a folder that holds it"),
        ("iris/1/self", "self", "leads nowhere"),
    ],
)
def test_a_link_that_leads_astray_is_refused(repository: Path, link: str, target: str, reason: str) -> None:
    """A link out of the repository, to nothing or in a circle is not followed, and is in the listing."""
    put(repository / "iris/1/saved_model.pb")
    put(repository.parent / "outside/saved_model.pb")
    put(repository.parent / "outside/secret.mar")
    (repository / link).symlink_to(target)
    listing = scan(repository)
    model = "out" if link.startswith("out") else "iris"
    assert reason in problem(listing, model)


@pytest.mark.parametrize("place", ["digits.mar", "digits/2/saved_model.pb", "digits/2/a/b", "digits/2/digits.mar"])
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_what_is_neither_file_nor_folder_is_refused_at_once(repository: Path, place: str, kind: str) -> None:
    """A pipe or a socket has its reason, is never opened, and harms nothing else."""
    odd = put(repository / place)
    if place.endswith("/b"):
        put(odd.parent.parent / "saved_model.pb")
    odd.unlink()
    if kind == "pipe":
        os.mkfifo(odd)
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(os.path.relpath(odd))
    put(repository / "iris/1/saved_model.pb")
    listing = scan(repository)
    assert f"'{odd.name}' is no file but a" in problem(listing, "digits")
    assert problem(listing, "iris") == ""


def test_a_link_bomb_is_refused(repository: Path) -> None:
    """Links that lead round through several folders are found out at the first turn, not at the last allowed one."""
    for number, other in (("1", "2"), ("2", "3"), ("3", "1")):
        put(repository / "iris" / number / "saved_model.pb")
        for name in "abc":
            (repository / "iris" / number / name).symlink_to(f"../{other}")
    found = versions(scan(repository), "iris")
    assert all("leads back to a folder that holds it" in version.problem for version in found.values())


def test_a_folder_of_too_many_files_is_refused(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is an end to what is read of one version or model."""
    monkeypatch.setattr(tree, "MAX_FILES", 5)
    monkeypatch.setattr(tree, "MAX_DEPTH", 2)
    for number in range(6):
        put(repository / f"flat/1/{number}")
        put(repository / f"wide/{number}/saved_model.pb")
        put(repository / f"spread/1/{number % 2}/{number}")
    for model in ("flat", "spread", "deep"):
        put(repository / model / "1/saved_model.pb")
    put(repository / "deep/1/a/b/c/d")
    listing = scan(repository)
    assert all("more than 5 files" in problem(listing, model) for model in ("flat", "wide", "spread", "deep"))


def test_what_may_not_be_read_is_a_problem_of_its_own(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without permission to list it has the system's words for it, and harms nothing else."""

    def guarded(folder: str) -> list[os.DirEntry[str]]:
        if folder.endswith(("iris/2", "secret")):
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return original(folder)

    original = tree.entries
    monkeypatch.setattr("portico.controller.scan.entries", guarded)
    for place in ("iris/1", "iris/2", "secret/1"):
        put(repository / place / "saved_model.pb")
    listing = scan(repository)
    assert versions(listing, "iris")["1"].problem == ""
    assert versions(listing, "iris")["2"].problem == "cannot be read: Permission denied: 2"
    assert problem(listing, "secret") == "cannot be read: Permission denied: secret"


def test_policies_are_found_beside_what_they_are_for(repository: Path) -> None:
    """model.yaml in a model's folder, <name>.yaml beside an archive; one that nothing belongs to is no model."""
    for file in ("iris/1/saved_model.pb", "digits.mar", "faces/3/x.mar", "faces/2/y.mar", "plain.mar"):
        put(repository / file)
    for file in ("iris/model.yaml", "digits.yaml", "faces/model.yaml", "early.yaml", "faces.yaml", "iris/2.yaml"):
        put(repository / file)
    models = scan(repository).models
    policies = {name: found.policy.path for name, found in models.items() if found.policy}
    assert policies == {"iris": "iris/model.yaml", "digits": "digits.yaml", "faces": "faces/model.yaml"}
    assert set(models) == {"iris", "digits", "faces", "plain"}
    assert models["iris"].policy is not None
    assert models["iris"].policy.files[0][1] == 1


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ("model.yml", "rename it to model.yaml"),
        ("folder", "'model.yaml' is no file but a folder"),
        ("pipe", "'model.yaml' is no file but a named pipe"),
        ("out", "'model.yaml' leads out of the repository"),
        ("gone", "'model.yaml' leads nowhere"),
    ],
)
def test_a_policy_that_cannot_be_one_leaves_the_versions_alone(repository: Path, policy: str, reason: str) -> None:
    """What is wrong with a policy is said of the policy."""
    put(repository / "iris/1/saved_model.pb")
    put(repository.parent / "outside.yaml")
    file = repository / "iris/model.yaml"
    match policy:
        case "model.yml":
            put(repository / "iris/model.yml")
        case "folder":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
        case "out":
            file.symlink_to("../../outside.yaml")
        case "gone":
            file.symlink_to("nowhere")
    found = scan(repository).models["iris"]
    assert found.policy is not None
    assert reason in found.policy.problem
    assert problem(scan(repository), "iris") == ""


def test_a_policy_in_its_right_name_hides_one_in_the_wrong(repository: Path) -> None:
    """Only where there is no model.yaml can model.yml have been meant."""
    for file in ("iris/1/saved_model.pb", "iris/model.yaml", "iris/model.yml"):
        put(repository / file)
    policy = scan(repository).models["iris"].policy
    assert policy is not None
    assert (policy.path, policy.problem) == ("iris/model.yaml", "")


def test_what_lies_behind_links_is_marked(repository: Path) -> None:
    """A link as the model, the version, the archive, the policy or a file deep inside: moving it brings no files."""
    put(repository / ".store/1/saved_model.pb")
    put(repository / ".store/x.mar")
    put(repository / "plain/1/saved_model.pb")
    put(repository / "plain/model.yaml")
    put(repository / "inside/1/saved_model.pb")
    (repository / "model").symlink_to(".store")
    (repository / "inside/1/assets").symlink_to("../../.store/1")
    (repository / "version").mkdir()
    (repository / "version/1").symlink_to("../.store/1")
    (repository / "archive.mar").symlink_to(".store/x.mar")
    (repository / "archive.yaml").symlink_to("plain/model.yaml")
    (repository / ".store/x.mar").rename(repository / ".store.mar")
    (repository / "archive.mar").unlink()
    (repository / "archive.mar").symlink_to(".store.mar")
    put(repository / "held/1/.keep")
    (repository / "held/1/held.mar").symlink_to("../../.store.mar")
    models = scan(repository).models
    linked = {name for name, found in models.items() if any(version.linked for version in found.versions)}
    assert linked == {"model", "inside", "version", "archive", "held"}
    assert {name for name, found in models.items() if found.policy and found.policy.linked} == {"archive"}


def test_an_archive_behind_a_link_out_of_the_repository_is_refused(repository: Path) -> None:
    """In a version's folder, too."""
    put(repository.parent / "secret.mar")
    put(repository / "faces/1/.keep")
    (repository / "faces/1/faces.mar").symlink_to("../../../secret.mar")
    assert "leads out of the repository" in problem(scan(repository), "faces")


def test_what_did_not_change_is_the_same_object_again(repository: Path) -> None:
    """Whoever compares two scans need not look into what is the same."""
    for file in ("iris/1/saved_model.pb", "iris/2/saved_model.pb", "digits.mar", "digits.yaml", "bad--name.mar"):
        put(repository / file)
    first = scan(repository)
    put(repository / "iris/2/saved_model.pb", b"longer")
    put(repository / "digits.yaml", b"longer")
    second = scan(repository, first)
    same = {name for name in first.models if second.models[name] is first.models[name]}
    assert same == {"bad--name"}
    assert second.models["iris"].versions[0] is first.models["iris"].versions[0]
    assert second.models["iris"].versions[1] != first.models["iris"].versions[1]
    third = scan(repository, second)
    assert all(third.models[name] is second.models[name] for name in second.models)


def test_every_way_to_change_a_file_changes_its_stamp(repository: Path) -> None:
    """The same length and the same time stamp do not hide that a file was overwritten, nor that it was replaced."""
    file = put(repository / "iris/1/saved_model.pb", b"aa")
    os.utime(file, ns=(1, 1))
    first = versions(scan(repository), "iris")["1"].files
    file.write_bytes(b"bb")
    os.utime(file, ns=(1, 1))
    second = versions(scan(repository), "iris")["1"].files
    put(repository / "new", b"cc").replace(file)
    os.utime(file, ns=(1, 1))
    third = versions(scan(repository), "iris")["1"].files
    assert len({first, second, third}) == 3


def test_a_repository_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A folder that cannot be read is not taken for an empty one: that would unload everything."""
    with pytest.raises(OSError, match="repository"):
        scan(tmp_path / "no-repository")


def test_scanning_reads_no_file(repository: Path) -> None:
    """A file that may not be opened is no trouble before it is judged."""
    file = put(repository / "digits.mar")
    file.chmod(0)
    assert scan(repository).models["digits"].problem == ""
