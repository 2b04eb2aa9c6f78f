"""Judges a TensorFlow SavedModel's folder by its files alone. Called by `repository` for files that have
settled.
"""

import re
from collections.abc import Iterable

from portico.controller.inventory import FileStamp
from portico.controller.scan import SAVED_MODEL, Rejected

INDEX = "variables/variables.index"
_SHARD = re.compile(r"variables/variables\.data-(\d{5})-of-(\d{5})")


def check_saved_model(files: Iterable[FileStamp]) -> None:
    """Raises Rejected with the reason when files are empty or missing.

    Variables are a tensor bundle: an index, and shards whose names tell how many there are
    (tensorflow/core/util/tensor_bundle). TF Serving serves weights that were never set when the index is missing.
    """
    sizes = {name: size for name, size, *_ in files}
    for name in SAVED_MODEL:
        if sizes.get(name) == 0:
            raise Rejected(f"'{name}' is empty")
    shards = {match[1]: match[2] for match in map(_SHARD.fullmatch, sizes) if match}
    if shards and INDEX not in sizes:
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
