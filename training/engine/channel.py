"""What the learner's processes tell each other beside gradients: trajectories, states, decisions."""

from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Channel(Protocol):
    """Every process calls the same methods in the same order. rank: this process's number of `ranks`, from 0."""

    @property
    def rank(self) -> int: ...

    @property
    def ranks(self) -> int: ...

    def gather(self, value: T) -> list[T]:
        """Returns the values of all processes, by rank, in every process."""
        ...

    def lead(self, make: Callable[[], T | None]) -> T:
        """Returns in every process what `make` gives in the first one, or raises what it raises there."""
        ...


class OneProcess:
    """The channel of a process that is alone."""

    rank = 0
    ranks = 1

    def gather(self, value: T) -> list[T]:
        return [value]

    def lead(self, make: Callable[[], T | None]) -> T:
        value = make()
        assert value is not None
        return value
