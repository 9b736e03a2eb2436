"""An expert's attempt at a scenario, and who makes attempts: the twin's expert and LIBERO's are two sources of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rehearsal.simulation import Scenario


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt of T control steps.

    state: float32 (T, S), measured before the action of its row; action: float32 (T, A); images: camera -> uint8
    (T, side, side, 3), seen with that state. steps: control steps up to and including the one that succeeded.
    """

    scenario: Scenario
    instruction: str
    success: bool
    steps: int
    state: np.ndarray
    action: np.ndarray
    images: dict[str, np.ndarray]


class AttemptSource(Protocol):
    """Tries scenarios of one task with its expert, `max_worlds` of them at once."""

    max_worlds: int

    def attempts(self, chosen: Sequence[Scenario]) -> Iterator[Attempt]:
        """Yields one attempt a scenario, in their order, each the same whatever else is tried beside it."""
        ...

    def close(self) -> None:
        """Frees threads and graphics contexts."""
        ...
