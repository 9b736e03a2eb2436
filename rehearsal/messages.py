"""What a policy sees and what it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One look at one cell.

    images: camera name -> uint8 (H, W, 3) RGB. state: float32 (S,), measured; in the layout and units of the
    ActionSpec where actions are absolute. captured_at: [s], monotonic, of the capturing host.
    """

    images: Mapping[str, np.ndarray]
    state: np.ndarray
    instruction: str
    captured_at: float


@dataclass(frozen=True, kw_only=True)
class ActionChunk:
    """The actions of the next T control steps.

    actions: float32 (T, A) in the ActionSpec's units. captured_at echoes the observation's stamp, so that the
    client can tell the age of an answer without comparing two hosts' clocks. inference_s: [s], on the server.
    """

    actions: np.ndarray
    captured_at: float
    sequence: int
    inference_s: float


def action_chunks(
    observations: Sequence[Observation], actions: Sequence[np.ndarray] | np.ndarray, answered: int, inference_s: float
) -> list[ActionChunk]:
    """Returns one chunk an observation from actions (B, T, A); `answered` chunks were numbered before."""
    return [
        ActionChunk(
            actions=row, captured_at=observation.captured_at, sequence=answered + number, inference_s=inference_s
        )
        for number, (observation, row) in enumerate(zip(observations, actions, strict=True), start=1)
    ]


class Policy(Protocol):
    """Anything that maps observations to action chunks."""

    def infer(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        """Returns one chunk an observation; the cells need not be the same from call to call."""
        ...

    def reset(self) -> None:
        """Forgets whatever is kept between calls; called before each episode."""
        ...
