"""How the frames of a minibatch are cut into passes, and each pass into the shares of the processes.

The cut is by frames, not by trajectories: episodes differ in length, frames cost the same, and the weights of the loss
are per token, so that a trajectory need not stay whole. Every process makes the same number of passes, as collective
operations need; one whose share is empty passes a frame that weighs nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Share:
    """rows: int64, what this process passes, at least one row. counts: false where they only keep step with others.

    last: whether this is the minibatch's last pass.
    """

    rows: np.ndarray
    counts: bool
    last: bool


def shares(frames: int, frames_a_forward: int, rank: int, ranks: int) -> Iterator[Share]:
    """Yields the share of process `rank` in each pass over `frames` frames, at least one."""
    width = frames_a_forward * ranks
    for start in range(0, frames, width):
        block = np.arange(start, min(start + width, frames))
        own = np.array_split(block, ranks)[rank]
        yield Share(own if len(own) else block[:1], len(own) > 0, start + width >= frames)
