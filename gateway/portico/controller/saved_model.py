"""Judges a TensorFlow SavedModel's folder without TensorFlow. Called by `judge` for files that have settled."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from portico.controller.fingerprint import open_file
from portico.controller.inventory import FileStamp
from portico.controller.rejected import Rejected, Stopped, StopSign, never
from portico.controller.scan import SAVED_MODEL
from portico.controller.tensor_bundle import Broken, read_index, varint

INDEX = "variables/variables.index"
MAX_INDEX_BYTES = 256 << 20
MAX_FIELDS = 100_000
"""Of one message; they are read one by one."""
MAX_GRAPHS = 1000
"""TensorFlow writes one, or one for each set of tags."""
_SHARD = re.compile(r"variables/variables\.data-(\d{5})-of-(\d{5})")
_META_GRAPHS, _OBJECTS = 2, 7
"""Fields' numbers in tensorflow/core/protobuf: SavedModel.meta_graphs, MetaGraphDef.object_graph_def."""


def check_saved_model(folder: Path, files: Iterable[FileStamp], stopped: StopSign = never) -> None:
    """Raises Rejected with the reason when files are empty, missing, or cut off; OSError; Stopped.

    Variables are a tensor bundle: an index, and shards whose names tell how many there are
    (tensorflow/core/util/tensor_bundle). TF Serving serves weights that were never set when the index is missing.
    """
    sizes = {name: size for name, size, *_ in files}
    for name in SAVED_MODEL:
        if sizes.get(name) == 0:
            raise Rejected(f"'{name}' is empty")
    objects = "saved_model.pb" in sizes and _check_graph(folder / "saved_model.pb", stopped)
    shards = {match[1]: match[2] for match in map(_SHARD.fullmatch, sizes) if match}
    if (shards or objects) and INDEX not in sizes:
        raise Rejected(f"'{INDEX}' is missing")
    if INDEX in sizes and sizes[INDEX] == 0:
        raise Rejected(f"'{INDEX}' is empty")
    if INDEX in sizes and not shards:
        raise Rejected("the shards of 'variables/variables.data' are missing")
    for total in set(shards.values()):
        expected = {f"{number:05d}" for number in range(int(total))}
        missing = expected - shards.keys()
        if missing:
            raise Rejected(f"'variables/variables.data-{min(missing)}-of-{total}' is missing")
    if INDEX in sizes:
        _check_lengths(folder / INDEX, sizes)


def _check_graph(path: Path, stopped: StopSign) -> bool:
    """Whether TensorFlow 2 wrote it: it describes objects, and then there is an index even without variables.

    Raises Rejected if the message's fields do not end where the file ends; the rest is for TensorFlow to say.
    """
    with open_file(path) as file:
        length, end, graphs = os.fstat(file.fileno()).st_size, 0, []
        try:
            for number, start, end in _fields(file, 0, length):
                if stopped():
                    raise Stopped
                if number == _META_GRAPHS:
                    graphs.append((start, end))
                if len(graphs) > MAX_GRAPHS:
                    raise Rejected(f"'saved_model.pb' holds more than {MAX_GRAPHS} graphs")
            if end > length:
                raise Rejected(f"'saved_model.pb' is cut off: it has {length} of {end} bytes")
            if not graphs:
                raise Rejected("'saved_model.pb' is no SavedModel: there is no graph in it")
        except Broken:
            raise Rejected("'saved_model.pb' is cut off, or no SavedModel") from None
        with suppress(Broken):
            return any(number == _OBJECTS for graph in graphs for number, _, _ in _fields(file, *graph))
    return False


def _fields(file: BinaryIO, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, where its content begins, where it ends) of each field of a protobuf message. Raises Broken."""
    for _ in range(MAX_FIELDS):
        if position >= end:
            return
        file.seek(position)
        head = file.read(20)
        tag, used = varint(head, 0)
        size, used = varint(head, used)
        if tag & 7 not in (0, 2) or not tag >> 3:  # no field has the number 0; a file full of zeros is none
            raise Broken
        start = position + used
        position = start + (size if tag & 7 else 0)
        yield tag >> 3, start, position
    raise Broken


def _check_lengths(index: Path, sizes: dict[str, int]) -> None:
    if sizes[INDEX] > MAX_INDEX_BYTES:
        raise Rejected(f"'{INDEX}' is larger than {MAX_INDEX_BYTES} bytes")
    with open_file(index) as file:
        content = file.read(MAX_INDEX_BYTES)
    try:
        bundle = read_index(content)
    except Broken:
        raise Rejected(f"'{INDEX}' is cut off or broken") from None
    for shard, length in sorted(bundle.lengths.items()) if bundle else ():
        name = f"variables/variables.data-{shard:05d}-of-{bundle.shards if bundle else 0:05d}"
        if name not in sizes:
            raise Rejected(f"'{name}' is missing")
        if sizes[name] < length:
            raise Rejected(f"'{name}' is cut off: it has {sizes[name]} of {length} bytes")
