"""Which training scenarios come next: in turn, or those that the policy solves about half of the time.

A group of n trajectories that each succeed with probability p ends mixed with a probability that is largest at
p = 1/2, and so carries a gradient most often there. The curriculum estimates p of each scenario from what was drawn
before, forgetting slowly because the policy changes, and draws scenarios with weight p (1 - p) above a floor, so that
none is ever given up.
"""

from typing import Any

import numpy as np

CURRICULUM = 6
"""Purpose of random numbers, so that no two ever share a seed."""
# One success and one failure that nobody saw: a scenario never drawn is taken for one of p = 1/2, the best there is.
PRIOR = 1.0
# What an earlier outcome counts for after each later one of the same scenario: about the last four groups matter.
MEMORY = 0.75
# Of p (1 - p), which is at most 0.25: a scenario that was always or never solved still comes one tenth as often.
FLOOR = 0.025


class InTurn:
    """Takes `count` scenarios one after the other, again and again."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._next = 0

    def take(self, count: int) -> np.ndarray:
        """Returns the places int64 (count,) of the scenarios that come next."""
        places = (self._next + np.arange(count)) % self._count
        self._next = (self._next + count) % self._count
        return places

    def record(self, places: np.ndarray, success: np.ndarray) -> None:
        """Takes note of the mean success (n,) of the groups at `places` (n,)."""

    def state(self) -> dict[str, Any]:
        return {"next": self._next}

    def load_state(self, state: dict[str, Any]) -> None:
        self._next = state["next"]


class Curriculum(InTurn):
    """Takes scenarios at random, by their success so far."""

    def __init__(self, count: int, seed: int) -> None:
        super().__init__(count)
        self._seed = seed
        self._successes = np.zeros(count)
        self._groups = np.zeros(count)

    @property
    def success(self) -> np.ndarray:
        """The estimated success (count,) of each scenario."""
        return (self._successes + PRIOR) / (self._groups + 2 * PRIOR)

    def take(self, count: int) -> np.ndarray:
        generator = np.random.default_rng([self._seed, CURRICULUM, self._next])
        self._next += 1
        weights = np.maximum(self.success * (1 - self.success), FLOOR)
        # More than there are: all of them, and some twice.
        whole, rest = divmod(count, self._count)
        drawn = generator.choice(self._count, rest, replace=False, p=weights / weights.sum())
        return np.concatenate([np.tile(np.arange(self._count), whole), drawn]).astype(np.int64)

    def record(self, places: np.ndarray, success: np.ndarray) -> None:
        for place, mean in zip(places, success, strict=True):
            self._successes[place] = MEMORY * self._successes[place] + mean
            self._groups[place] = MEMORY * self._groups[place] + 1

    def state(self) -> dict[str, Any]:
        return super().state() | {"successes": self._successes.tolist(), "groups": self._groups.tolist()}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self._successes, self._groups = np.array(state["successes"]), np.array(state["groups"])
