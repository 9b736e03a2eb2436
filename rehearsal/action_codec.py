"""Action tokens: how a chunk of actions becomes categorical tokens and back.

Each token is one of `bins` equal bins of one action dimension at one knot (256 bins, after RT-2, Brohan et al.
2023, and OpenVLA, Kim et al. 2024). A chunk of T control steps has K knots at its steps T/K, 2T/K, ... T; the
steps between are linear from the measured state through the knots. K = T gives one token a step and dimension,
as in OpenVLA-OFT; fewer knots explore better, because independent noise on every step is smoothed away by the arm.

A relative dimension's tokens are offsets from the measured state, an absolute one's the action itself.

Actions that are steps from where the arm is (an ActionSpec's mode "delta") have no path through knots: a codec that
holds plays a knot's action at each of its control steps and never reads the state, which may have another layout.
"""

import msgspec
import numpy as np


class ActionCodec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """lower, upper, relative: one entry an action dimension; the outer edges of the first and last bin.

    hold: a knot's action is held over its control steps, and encodes their mean: for delta actions.
    """

    chunk_steps: int
    knots: int
    bins: int
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    relative: tuple[bool, ...]
    hold: bool = False

    def __post_init__(self) -> None:
        if self.chunk_steps < 1 or self.knots < 1 or self.bins < 2:
            counts = f"chunk_steps {self.chunk_steps}, knots {self.knots}, bins {self.bins}"
            raise ValueError(f"chunk_steps and knots must be at least 1 and bins 2, got {counts}")
        if self.chunk_steps % self.knots:
            raise ValueError(f"chunk_steps {self.chunk_steps} must be a multiple of knots {self.knots}")
        if not len(self.lower) == len(self.upper) == len(self.relative):
            raise ValueError("lower, upper and relative need one entry an action dimension")
        if any(not low < high for low, high in zip(self.lower, self.upper)):
            raise ValueError("lower must be below upper in every dimension")
        if self.hold and any(self.relative):
            raise ValueError("a codec that holds its knots does not read the state: relative must be false everywhere")

    @property
    def dim(self) -> int:
        return len(self.lower)

    @property
    def tokens(self) -> int:
        """Tokens a chunk: knots x dimensions."""
        return self.knots * self.dim

    @property
    def steps_a_knot(self) -> int:
        return self.chunk_steps // self.knots

    def encode(self, actions: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Returns tokens int64 (..., K, A) of actions (..., T, A) seen from the measured state.

        state: (..., A), or of any layout when the codec holds.
        """
        knots = knot_values(actions, self.knots, hold=self.hold) - (0.0 if self.hold else self._origin(state))
        fraction = (knots - np.asarray(self.lower)) / (np.asarray(self.upper) - np.asarray(self.lower))
        return np.clip(np.floor(fraction * self.bins), 0, self.bins - 1).astype(np.int64)

    def decode(self, tokens: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Returns actions float32 (..., T, A) of tokens (..., K, A), which may be fractional bins (a mean).

        state: (..., A), or of any layout when the codec holds.
        """
        width = (np.asarray(self.upper) - np.asarray(self.lower)) / self.bins
        knots = np.asarray(self.lower) + (np.asarray(tokens) + 0.5) * width
        if self.hold:
            return np.repeat(knots, self.steps_a_knot, axis=-2).astype(np.float32)
        knots = knots + self._origin(state)
        points = np.concatenate([np.asarray(state)[..., None, :], knots], axis=-2)
        step = (np.arange(self.chunk_steps) + 1) / self.steps_a_knot
        left = np.minimum(step.astype(int), self.knots - 1)
        weight = (step - left)[:, None]
        return (points[..., left, :] * (1 - weight) + points[..., left + 1, :] * weight).astype(np.float32)

    def _origin(self, state: np.ndarray) -> np.ndarray:
        return np.where(self.relative, state, 0.0)[..., None, :]


def knot_values(actions: np.ndarray, knots: int, *, hold: bool) -> np.ndarray:
    """Returns (..., K, A) of actions (..., T, A): the mean over each knot's steps when held, else its last step's."""
    steps = actions.shape[-2] // knots
    if not hold:
        return actions[..., steps - 1 :: steps, :]
    return actions.reshape(*actions.shape[:-2], knots, steps, actions.shape[-1]).mean(axis=-2)
