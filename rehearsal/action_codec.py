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
    intervals: equal parts of the range, as many as `bins` when 0. OpenVLA has 256 tokens for 255 intervals: the last
    token is of a value at the upper end, and decodes like the one before.
    switch: dimensions that are commanded to one of two values, switch_low where the decoded value is at most a half and
    switch_high above: OpenVLA's grippers. Empty: none.
    """

    chunk_steps: int
    knots: int
    bins: int
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    relative: tuple[bool, ...]
    hold: bool = False
    intervals: int = 0
    switch: tuple[bool, ...] = ()
    switch_low: tuple[float, ...] = ()
    switch_high: tuple[float, ...] = ()

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
        if not 0 <= self.intervals <= self.bins:
            raise ValueError(f"intervals {self.intervals} must be at most bins {self.bins}")
        if self.switch and not len(self.switch) == len(self.switch_low) == len(self.switch_high) == self.dim:
            raise ValueError("switch, switch_low and switch_high need one entry an action dimension, or none")
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

    @property
    def cells(self) -> int:
        """Equal parts of a dimension's range."""
        return self.intervals or self.bins

    def encode(self, actions: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Returns tokens int64 (..., K, A) of actions (..., T, A) seen from the measured state.

        state: (..., A), or of any layout when the codec holds.
        """
        knots = knot_values(actions, self.knots, hold=self.hold) - (0.0 if self.hold else self._origin(state))
        knots = self._unswitched(knots)
        fraction = (knots - np.asarray(self.lower)) / (np.asarray(self.upper) - np.asarray(self.lower))
        return np.clip(np.floor(fraction * self.cells), 0, self.bins - 1).astype(np.int64)

    def decode(self, tokens: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Returns actions float32 (..., T, A) of tokens (..., K, A), which may be fractional bins (a mean).

        state: (..., A), or of any layout when the codec holds.
        """
        width = (np.asarray(self.upper) - np.asarray(self.lower)) / self.cells
        knots = np.asarray(self.lower) + (np.minimum(tokens, self.cells - 1) + 0.5) * width
        knots = self._switched(knots)
        if self.hold:
            return np.repeat(knots, self.steps_a_knot, axis=-2).astype(np.float32)
        knots = knots + self._origin(state)
        points = np.concatenate([np.asarray(state)[..., None, :], knots], axis=-2)
        step = (np.arange(self.chunk_steps) + 1) / self.steps_a_knot
        left = np.minimum(step.astype(int), self.knots - 1)
        weight = (step - left)[:, None]
        return (points[..., left, :] * (1 - weight) + points[..., left + 1, :] * weight).astype(np.float32)

    def decode_normalised(self, actions: np.ndarray) -> np.ndarray:
        """Returns actions float32 (..., T, A) of a regression's values (..., T, A): -1 and 1 are the range's ends."""
        lower, upper = np.asarray(self.lower), np.asarray(self.upper)
        return self._switched(lower + 0.5 * (actions + 1) * (upper - lower)).astype(np.float32)

    def _switched(self, knots: np.ndarray) -> np.ndarray:
        """Returns knots (..., K, A) with the switches' values made commands."""
        if not any(self.switch):
            return knots
        return np.where(self.switch, np.where(knots > 0.5, self.switch_high, self.switch_low), knots)

    def _unswitched(self, knots: np.ndarray) -> np.ndarray:
        """Returns knots (..., K, A) with the switches' commands made 0 or 1, whichever is nearer."""
        if not any(self.switch):
            return knots
        middle = (np.asarray(self.switch_low) + np.asarray(self.switch_high)) / 2
        above = (knots - middle) * (np.asarray(self.switch_high) - np.asarray(self.switch_low)) > 0
        return np.where(self.switch, above.astype(knots.dtype), knots)

    def _origin(self, state: np.ndarray) -> np.ndarray:
        return np.where(self.relative, state, 0.0)[..., None, :]


def knot_values(actions: np.ndarray, knots: int, *, hold: bool) -> np.ndarray:
    """Returns (..., K, A) of actions (..., T, A): the mean over each knot's steps when held, else its last step's."""
    steps = actions.shape[-2] // knots
    if not hold:
        return actions[..., steps - 1 :: steps, :]
    return actions.reshape(*actions.shape[:-2], knots, steps, actions.shape[-1]).mean(axis=-2)
