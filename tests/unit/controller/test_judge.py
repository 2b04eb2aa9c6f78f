"""What is found when files are opened: archives, SavedModels, fingerprints, and the names made of them."""

import contextlib
import itertools
import json
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.controller import archive
from portico.controller.archive import archive_version
from portico.controller.fingerprint import fingerprint
from portico.controller.inventory import FileStamp, FoundVersion
from portico.controller.judge import judge
from portico.controller.rejected import Rejected, Stopped
from portico.controller.saved_model import INDEX, MAX_GRAPHS, check_saved_model
from portico.controller.servable import Servable, is_generated, version_key
from portico.controller.tensor_bundle import Broken, read_index
from portico.routing import Server

MODEL = {"modelName": "digits", "modelVersion": "2.1", "handler": "handler.py:run", "serializedFile": "weights.pt"}
FILES = {"handler.py": b"print()\n" * 100, "weights.pt": bytes(range(256)) * 40}


def pack(path: Path, model: Any = MODEL, files: dict[str, bytes] = FILES, manifest: bytes | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        text = json.dumps({"model": model, "runtime": "python"}).encode() if manifest is None else manifest
        packed.writestr("MAR-INF/MANIFEST.json", text)
        for name, content in files.items():
            packed.writestr(name, content)
    return path


def stamps(*names: str, size: int = 1) -> list[FileStamp]:
    return [(name, size, 0, 0, 0) for name in names]


def test_an_archive_has_the_version_of_its_manifest(tmp_path: Path) -> None:
    """A whole archive passes, and tells its version."""
    assert archive_version(pack(tmp_path / "a.mar")) == "2.1"


def test_an_archive_without_a_version_has_torchserves_default(tmp_path: Path) -> None:
    """What TorchServe calls 1.0, we call 1.0."""
    assert archive_version(pack(tmp_path / "a.mar", {"modelName": "a", "handler": "image_classifier"})) == "1.0"


def test_an_archive_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    """Whatever part of an archive is missing at its end, it is not taken for whole."""
    whole = pack(tmp_path / "a.mar").read_bytes()
    for length in range(0, len(whole), 7):
        cut = tmp_path / "cut.mar"
        cut.write_bytes(whole[:length])
        with pytest.raises(Rejected, match="cut off or broken"):
            archive_version(cut)


def test_an_archive_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    """Contents that do not match their checksum are found."""
    path = pack(tmp_path / "a.mar")
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as packed:
        offset = packed.getinfo("weights.pt").header_offset
    content[offset + 60] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(Rejected, match="cut off or broken"):
        archive_version(path)


@pytest.mark.parametrize("name", ["../evil.py", "/etc/passwd", "a/../../b", "a\\b"])
def test_an_archive_that_leaves_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    """No path in an archive may escape the folder it is unpacked into."""
    with pytest.raises(Rejected, match="outside of itself"):
        archive_version(pack(tmp_path / "a.mar", files={**FILES, name: b""}))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({**MODEL, "serializedFile": "other.pt"}, "serializedFile 'other.pt', which is not in the archive"),
        ({**MODEL, "handler": "missing.py"}, "handler 'missing.py'"),
        ({**MODEL, "handler": "../../etc/passwd:run"}, "handler '../../etc/passwd'"),
        ({**MODEL, "modelFile": 3}, "no text as its 'modelFile'"),
        ({**MODEL, "modelVersion": "../1"}, "model version"),
        ({**MODEL, "modelVersion": 1}, "model version"),
        ([], "no object 'model'"),
    ],
)
def test_a_manifest_that_cannot_be_right_is_refused(tmp_path: Path, model: Any, reason: str) -> None:
    """What the manifest names has to be there, and its version has to be one."""
    with pytest.raises(Rejected, match=reason):
        archive_version(pack(tmp_path / "a.mar", model))


@pytest.mark.parametrize("manifest", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_manifest_that_is_no_json_object_is_refused(tmp_path: Path, manifest: bytes) -> None:
    """Text that no parser takes does not stop the controller."""
    with pytest.raises(Rejected, match="MANIFEST"):
        archive_version(pack(tmp_path / "a.mar", manifest=manifest))


def test_a_zip_file_of_something_else_is_refused(tmp_path: Path) -> None:
    """An archive without a manifest says how to make one."""
    with zipfile.ZipFile(tmp_path / "a.mar", "w") as packed:
        packed.writestr("readme", "")
    with pytest.raises(Rejected, match="torch-model-archiver"):
        archive_version(tmp_path / "a.mar")


@pytest.mark.parametrize("large", [False, True])
def test_an_archive_whose_list_of_files_is_too_large_is_refused_unread(tmp_path: Path, large: bool) -> None:
    """A file with a hole takes no room on the disk, and would take as much memory as its end says."""
    size = archive.MAX_DIRECTORY_BYTES + 1
    path = tmp_path / "a.mar"
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(0, os.SEEK_END)
        if large:
            file.write(struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, size, 0))
            file.write(struct.pack("<4sLQL", b"PK\6\7", 0, size, 1))
        file.write(struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 1, 1, 0xFFFFFFFF if large else size, 0, 0))
    with pytest.raises(Rejected, match="list of files is larger than"):
        archive_version(path)


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size that an archive says it has is judged before any of it is unpacked."""
    path = pack(tmp_path / "a.mar")
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(Rejected, match="more than 1000 none may"):
        archive_version(path)


def test_an_archive_that_is_small_and_unpacks_to_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would fill the model server's disk from a few bytes is no model; small files may shrink as they like."""
    path = pack(tmp_path / "a.mar", files={**FILES, "zeros.bin": bytes(4 << 20)})
    assert archive_version(path) == "2.1"
    monkeypatch.setattr(archive, "PLAUSIBLE_BYTES", 1 << 20)
    with pytest.raises(Rejected, match="more than 100 times its size"):
        archive_version(path)


def test_reading_stops_when_nobody_waits_for_it(tmp_path: Path) -> None:
    """A large file that was deleted or changed does not hold up the others until its end."""
    path = pack(tmp_path / "a.mar")
    with pytest.raises(Stopped):
        archive_version(path, lambda: True)
    with pytest.raises(Stopped):
        fingerprint(path, stamps(""), lambda: True)
    asked: list[bool] = []
    with pytest.raises(Stopped):
        judge(tmp_path, FoundVersion("", Server.TORCHSERVE, "a.mar", tuple(stamps(""))), lambda: not asked.append(True))


GRAPH = b"\x08\x01\x12\x05graph"
SHARDS = [f"variables/variables.data-{number:05d}-of-00002" for number in range(2)]


def number(value: int) -> bytes:
    """As protobuf and the table write it: seven bits in a byte."""
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + number(value >> 7)


def block(entries: dict[bytes, bytes]) -> bytes:
    """A block of a table, each key sharing with the one before what it can."""
    written, before = b"", b""
    for key, value in entries.items():
        shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(before, key, strict=False)))
        written += number(shared) + number(len(key) - shared) + number(len(value)) + key[shared:] + value
        before = key
    return written + bytes(4) + (1).to_bytes(4, "little")


def index(lengths: dict[int, int], shards: int = 2, kind: int = 0) -> bytes:
    """A bundle's index: one tensor that begins at byte 100 in each shard."""
    entries = {b"": b"\x08" + number(shards) + b"\x1a\x02\x08\x01"}
    for shard, length in lengths.items():
        place = b"\x18" + number(shard) + b"\x20" + number(100) + b"\x28" + number(length - 100)
        entries[f"layer/{shard}/kernel".encode()] = b"\x08\x01" + place + b"\x35abcd"
    data = block(entries)
    top = block({b"z": number(0) + number(len(data))})
    written = data + bytes([kind]) + bytes(4) + top + bytes(5)
    footer = number(0) + number(0) + number(len(data) + 5) + number(len(top))
    return written + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def saved_model(folder: Path, **files: bytes) -> list[FileStamp]:
    """A whole SavedModel with two shards of 300 and 400 bytes, but for `files`."""
    whole = {"graph": GRAPH, "index": index({0: 300, 1: 400}), "first": bytes(300), "second": bytes(400)} | files
    (folder / "variables").mkdir()
    names = dict(zip(whole, ["saved_model.pb", "variables/variables.index", *SHARDS], strict=True))
    for part, content in whole.items():
        (folder / names[part]).write_bytes(content)
    return [(names[part], len(content), 0, 0, 0) for part, content in whole.items()]


def test_a_whole_saved_model_passes(tmp_path: Path) -> None:
    """With all its shards; with an index in a form that cannot be read; without any variables."""
    check_saved_model(tmp_path, saved_model(tmp_path))
    (tmp_path / "variables/variables.index").write_bytes(index({0: 9999}, kind=1))
    check_saved_model(tmp_path, stamps("saved_model.pb", INDEX, *SHARDS))
    check_saved_model(tmp_path, stamps("saved_model.pb"))
    check_saved_model(tmp_path, stamps("saved_model.pbtxt"))


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["variables/variables.data-00000-of-00001"], "variables.index' is missing"),
        (["variables/variables.index"], "data' are missing"),
        (["variables/variables.index", "variables/variables.data-00001-of-00002"], "data-00000-of-00002' is missing"),
    ],
)
def test_a_saved_model_without_all_its_variables_is_refused(tmp_path: Path, names: list[str], reason: str) -> None:
    """TF Serving would serve weights that were never set."""
    saved_model(tmp_path)
    with pytest.raises(Rejected, match=reason):
        check_saved_model(tmp_path, stamps("saved_model.pb", *names))


@pytest.mark.parametrize(
    ("part", "content", "reason"),
    [
        ("first", bytes(299), "data-00000-of-00002' is cut off: it has 299 of 300 bytes"),
        ("second", bytes(4), "data-00001-of-00002' is cut off: it has 4 of 400 bytes"),
        ("index", index({0: 300, 2: 110}, 3), "data-00000-of-00003' is missing"),
        ("index", index({0: 300})[:-1], "variables.index' is cut off or broken"),
        ("index", b"x" * 100, "variables.index' is cut off or broken"),
        ("graph", GRAPH[:-1], "'saved_model.pb' is cut off: it has 8 of 9 bytes"),
        ("graph", GRAPH[:3], "'saved_model.pb' is cut off"),
        ("graph", b"broken", "'saved_model.pb' is cut off"),
        ("graph", b"\x08\x01", "there is no graph in it"),
        ("graph", bytes(1 << 20), "'saved_model.pb' is cut off, or no SavedModel"),
        ("graph", GRAPH + bytes(1 << 20), "'saved_model.pb' is cut off, or no SavedModel"),
        ("graph", b"\x12\x00" * (MAX_GRAPHS + 1), f"holds more than {MAX_GRAPHS} graphs"),
    ],
)
def test_a_saved_model_that_is_cut_off_is_refused(tmp_path: Path, part: str, content: bytes, reason: str) -> None:
    """All files are there, and one of them is not whole."""
    files = saved_model(tmp_path, **{part: content})
    with pytest.raises(Rejected, match=reason):
        check_saved_model(tmp_path, files)


@given(st.binary(max_size=60) | st.integers(0, 120).map(lambda length: index({0: 300})[-length:]), st.integers(0, 200))
def test_an_index_of_any_bytes_is_read_or_refused(head: bytes, flip: int) -> None:
    """Nothing but the one error comes out of bytes that anybody may have written."""
    whole = bytearray(head + index({0: 300}))
    whole[flip % len(whole)] ^= 0xFF
    for content in (bytes(whole), head):
        with contextlib.suppress(Broken):
            read_index(content)


def test_reading_a_saved_model_stops_when_nobody_waits_for_it(tmp_path: Path) -> None:
    """Its list of fields may be as long as a hostile file is; nothing is said of what was not read to its end."""
    files = saved_model(tmp_path, graph=b"\x08\x01" * 1000)
    with pytest.raises(Rejected, match="there is no graph in it"):
        check_saved_model(tmp_path, files)
    with pytest.raises(Stopped):
        check_saved_model(tmp_path, files, lambda: True)
    with pytest.raises(Stopped):
        judge(tmp_path, FoundVersion("1", Server.TF_SERVING, "", tuple(files)), lambda: True)


def test_an_empty_file_in_a_saved_model_is_refused(tmp_path: Path) -> None:
    """A file that was made and not written yet."""
    with pytest.raises(Rejected, match="is empty"):
        check_saved_model(tmp_path, stamps("saved_model.pb", size=0))
    with pytest.raises(Rejected, match=r"variables.index' is empty"):
        check_saved_model(tmp_path, [*stamps(INDEX, size=0), *stamps(SHARDS[0])])


def test_a_fingerprint_is_of_names_and_contents(tmp_path: Path) -> None:
    """It changes with a content, with a name, with where a file ends, and with nothing else."""

    def digest(**files: bytes) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return fingerprint(folder, stamps(*files))

    variants = [digest(a=b"12", b=b"3"), digest(a=b"1", b=b"23"), digest(a=b"12", c=b"3"), digest(a=b"123")]
    assert len(set(variants)) == 4
    assert digest(b=b"3", a=b"12") == variants[0]


def test_a_pipe_in_a_files_place_does_not_hold_up_the_reader(tmp_path: Path) -> None:
    """What was a file when it was scanned and is a pipe when it is opened has its reason at once."""
    os.mkfifo(tmp_path / "a.mar")
    with pytest.raises(Rejected, match="is no file"):
        archive_version(tmp_path / "a.mar")
    with pytest.raises(Rejected, match="is no file"):
        fingerprint(tmp_path, stamps("a.mar"))


def test_a_saved_model_of_tensorflow_2_has_an_index_even_without_variables() -> None:
    """Where it is missing, the files are still being copied."""
    folder = Path(__file__).parents[3] / "model-repository" / "iris" / "1"
    with pytest.raises(Rejected, match=r"'variables/variables.index' is missing"):
        check_saved_model(folder, stamps("saved_model.pb"))


def test_a_fingerprint_of_an_archive_does_not_depend_on_its_place(tmp_path: Path) -> None:
    """The same archive under another name has the same fingerprint."""
    for name in ("a.mar", "b.mar"):
        (tmp_path / name).write_bytes(b"content")
    assert fingerprint(tmp_path / "a.mar", stamps("")) == fingerprint(tmp_path / "b.mar", stamps(""))


def test_a_servables_name_stands_for_its_version_and_content() -> None:
    """Another content or another version is another name, and each is recognised as ours."""

    def name(version: str, content: str) -> str:
        return Servable.of_files("iris", version, Server.TF_SERVING, version, "iris/1", content).name

    names = [name("1", "a"), name("2", "a"), name("1", "b")]
    assert len(set(names)) == 3
    assert name("1", "a") == names[0]
    assert all(is_generated(one) and one.startswith("iris--") for one in names)
    assert not is_generated("iris")


@given(st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=4)))
def test_versions_sort_by_their_numbers(versions: list[list[int]]) -> None:
    """Dotted numbers sort as lists of numbers do."""
    dotted = [".".join(map(str, version)) for version in versions]
    assert sorted(dotted, key=version_key) == [".".join(map(str, version)) for version in sorted(versions)]
