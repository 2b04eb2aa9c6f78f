"""Choices that hypothesis makes, all of an example by one number: made one by one, most examples would be alike, as it
prefers small values and those that it has seen. Used by what makes hostile requests for the fuzz tests.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

from hypothesis import note
from hypothesis import strategies as st

LONGEST_NOTE = 10_000
"""Characters of what was made that a failure shows."""

T = TypeVar("T")
_SEEDS = st.integers(0, (1 << 64) - 1)


class Choices:
    """The choices of one example. `draw` is hypothesis's own way, for what it knows better: floats, say."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self._random = Random(draw(_SEEDS))

    def upto(self, most: int) -> int:
        """0 … `most`."""
        return self._random.randint(0, most)

    def one(self, values: Sequence[T]) -> T:
        """One of `values`, of which there is at least one."""
        return self._random.choice(values)

    def rarely(self, times: int) -> bool:
        """True in one of `times`."""
        return self.upto(times - 1) == 0

    def binary(self, most: int) -> bytes:
        """Up to `most` bytes."""
        return self._random.randbytes(self.upto(most))


def made(make: Callable[[Choices], T]) -> st.SearchStrategy[T]:
    """The strategy of what `make` makes."""

    @st.composite
    def strategy(draw: st.DrawFn) -> T:
        value = make(Choices(draw))
        note(repr(value)[:LONGEST_NOTE])
        return value

    return strategy()
