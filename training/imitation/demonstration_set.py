"""Demonstrations in memory, and what is fitted to them: the input transform and the action codec."""

from dataclasses import dataclass

import numpy as np

from rehearsal.action_codec import ActionCodec, knot_values
from rehearsal.spec import ActionSpec
from rehearsal.transforms import InputTransform

# Below this standard deviation a state value does not vary but for noise, which normalising would blow up:
# 0.01 is half a degree for a joint [rad] and a centimetre for a gripper [m].
STATE_STD_FLOOR = 0.01
# Smallest range of a codec dimension, in its unit: a joint that hardly moves in the demonstrations must not get bins
# finer than an arm can follow, for their noise would then outweigh every other token's gradient.
CODEC_RANGE_FLOOR = 0.3


@dataclass(frozen=True, kw_only=True)
class DemonstrationSet:
    """N decision points of E successful episodes: what the policy would see there, and what the expert then did.

    images: uint8 (N, cameras, side, side, 3), in the transform's order and size. state: float32 (N, S), measured,
    raw. actions: float32 (N, T, A), the next T control steps, past the episode's end those that hold still.
    instructions: N strings. episode: int64 (N,).
    """

    images: np.ndarray
    state: np.ndarray
    actions: np.ndarray
    instructions: list[str]
    episode: np.ndarray

    def __len__(self) -> int:
        return len(self.state)

    def select(self, rows: np.ndarray) -> "DemonstrationSet":
        return DemonstrationSet(
            images=self.images[rows],
            state=self.state[rows],
            actions=self.actions[rows],
            instructions=[self.instructions[i] for i in rows],
            episode=self.episode[rows],
        )

    def split(self, validation_fraction: float) -> tuple["DemonstrationSet", "DemonstrationSet"]:
        """Returns (training, validation) sets; whole episodes, evenly spaced, go to validation."""
        episodes = np.unique(self.episode)
        count = round(validation_fraction * len(episodes))
        chosen = episodes[np.linspace(0, len(episodes) - 1, count).astype(int)] if count else episodes[:0]
        held = np.isin(self.episode, chosen)
        return self.select(np.flatnonzero(~held)), self.select(np.flatnonzero(held))


def fit_transform(
    demonstrations: DemonstrationSet,
    cameras: tuple[str, ...],
    side_px: int,
    *,
    text_buckets: int = 512,
    text_length: int = 16,
) -> InputTransform:
    """Returns the transform whose normalised states have mean 0 and standard deviation 1 over the demonstrations."""
    state = demonstrations.state.astype(np.float64)
    return InputTransform(
        cameras=cameras,
        side_px=side_px,
        state_mean=tuple(state.mean(axis=0).tolist()),
        state_std=tuple(np.maximum(state.std(axis=0), STATE_STD_FLOOR).tolist()),
        text_buckets=text_buckets,
        text_length=text_length,
    )


def fit_codec(
    demonstrations: DemonstrationSet,
    spec: ActionSpec,
    *,
    knots: int,
    bins: int = 256,
    margin: float = 0.1,
    absolute_units: tuple[str, ...] = ("m",),
) -> ActionCodec:
    """Returns a codec whose bins span the demonstrated knots and `margin` of that range beyond, on both sides.

    Grippers, and dimensions in `absolute_units`, are absolute and span the spec's bounds; all others are offsets from
    the measured state when the spec's actions are absolute. Delta actions are held over a knot's steps.
    """
    steps, hold = demonstrations.actions.shape[1], spec.mode == "delta"
    own = np.array(spec.grippers) | np.array([unit in absolute_units for unit in spec.units])
    relative = tuple((~own & (spec.mode == "absolute")).tolist())
    demonstrated = knot_values(demonstrations.actions, knots, hold=hold)
    if not hold:
        demonstrated = demonstrated - np.where(relative, demonstrations.state, 0.0)[:, None, :]
    lowest, highest = demonstrated.min(axis=(0, 1)), demonstrated.max(axis=(0, 1))
    span = np.maximum(highest - lowest, CODEC_RANGE_FLOOR)
    centre = (highest + lowest) / 2
    lower, upper = centre - span * (0.5 + margin), centre + span * (0.5 + margin)
    return ActionCodec(
        chunk_steps=steps,
        knots=knots,
        bins=bins,
        lower=tuple(np.where(own, spec.lower, lower).tolist()),
        upper=tuple(np.where(own, spec.upper, upper).tolist()),
        relative=relative,
        hold=hold,
    )
