"""Which of many servables to ask after in one round, when asking for all would take too long. Used by the adapters
beside it.
"""

from collections.abc import Collection
from itertools import islice

SIZE = 4
"""How many that were ready at the last look are looked at again in one round."""


class Rotation:
    """Goes round a changing set of names, `SIZE` of them at a time."""

    def __init__(self) -> None:
        self._last = ""

    def next(self, names: Collection[str]) -> list[str]:
        """The names whose turn it is: each comes up once before any comes up again."""
        ordered = sorted(names)
        start = next((index for index, name in enumerate(ordered) if name > self._last), 0)
        turn = list(islice(ordered[start:] + ordered[:start], SIZE))
        self._last = turn[-1] if turn else ""
        return turn
