"""Choices that hypothesis makes, in a form that costs little: strategies that are built anew for each example take
longer than what is tested. Used by what makes hostile requests for the fuzz tests.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeVar

from hypothesis import strategies as st

T = TypeVar("T")


class Choices:
    """The choices of one example. Smaller ones come first when hypothesis looks for the simplest fault."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw

    def upto(self, most: int) -> int:
        """0 … `most`."""
        return self.draw(_upto(most))

    def one(self, values: Sequence[T]) -> T:
        """One of `values`, of which there is at least one."""
        return values[self.upto(len(values) - 1)]

    def rarely(self, times: int) -> bool:
        """True in one of `times`."""
        return self.upto(times - 1) == times - 1

    def binary(self, most: int) -> bytes:
        """Up to `most` bytes."""
        return self.draw(_binary(most))


@lru_cache(maxsize=4096)
def _upto(most: int) -> st.SearchStrategy[int]:
    return st.integers(0, most)


@lru_cache(maxsize=64)
def _binary(most: int) -> st.SearchStrategy[bytes]:
    return st.binary(max_size=most)


def made(make: Callable[[Choices], T]) -> st.SearchStrategy[T]:
    """The strategy of what `make` makes."""

    @st.composite
    def strategy(draw: st.DrawFn) -> T:
        return make(Choices(draw))

    return strategy()
