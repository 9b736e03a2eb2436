"""What is fitted to demonstrations: the bins of the action codec, against ranges worked out by hand."""

import numpy as np
import pytest

from rehearsal.spec import ActionSpec
from training.imitation.demonstration_set import CODEC_RANGE_FLOOR, DemonstrationSet, fit_codec
from training.imitation.load_demonstrations import still


def demonstrations(shift: float = 1.0, state_dim: int = 3) -> DemonstrationSet:
    """Two decision points with chunks of four steps: a joint that moves, one that hardly does, and a gripper.

    The first dimension moves about `shift` times its state.
    """
    state = np.array([[0.1, 1.0, 0.0], [0.5, 1.0, 0.02]], np.float32)
    offsets = np.array([[[0.1], [0.2], [0.3], [0.4]], [[-0.1], [-0.2], [-0.3], [-0.4]]])
    moving, resting, gripper = shift * state[:, None, :1] + offsets, np.full((2, 4, 1), 1.01), np.full((2, 4, 1), 0.03)
    actions = np.concatenate([moving, resting, gripper], axis=2)
    return DemonstrationSet(
        images=np.zeros((2, 1, 16, 16, 3), np.uint8),
        state=np.resize(state, (2, state_dim)),
        actions=actions.astype(np.float32),
        instructions=["do it"] * 2,
        episode=np.array([0, 1]),
    )


def test_bins_span_the_knots_the_floor_or_the_gripper() -> None:
    """Knots are steps 2 and 4: offsets of the first joint -0.4 to 0.4; of the second 0.01; the gripper is absolute."""
    spec = ActionSpec(
        names=("j1", "j2", "gripper"), units=("rad", "rad", "m"), frame="joint", mode="absolute", gripper_sign=1,
        lower=(-2.0, -2.0, 0.0), upper=(2.0, 2.0, 0.07), rate_hz=25.0,
    )  # fmt: skip
    codec = fit_codec(demonstrations(), spec, knots=2, bins=256, margin=0.1)
    assert (codec.chunk_steps, codec.knots, codec.bins, codec.relative) == (4, 2, 256, (True, True, False))
    half = 0.6 * CODEC_RANGE_FLOOR
    assert codec.lower == pytest.approx((-0.48, 0.01 - half, 0.0), abs=1e-6)
    assert codec.upper == pytest.approx((0.48, 0.01 + half, 0.07), abs=1e-6)


DELTA = ActionSpec(
    names=("x", "y", "gripper"), units=("1", "1", "1"), frame="end_effector", mode="delta", gripper_sign=-1,
    lower=(-1.0, -1.0, -1.0), upper=(1.0, 1.0, 1.0), rate_hz=20.0,
)  # fmt: skip


def test_delta_actions_are_held_and_their_gripper_spans_its_bounds() -> None:
    """Means over the knots of two steps: x 0.15, 0.35, -0.15 and -0.35; y 1.01 throughout; the state is not read."""
    codec = fit_codec(demonstrations(shift=0.0, state_dim=5), DELTA, knots=2, bins=256, margin=0.1)
    assert (codec.hold, codec.relative) == (True, (False, False, False))
    half = 0.6 * CODEC_RANGE_FLOOR
    assert codec.lower == pytest.approx((-0.42, 1.01 - half, -1.0), abs=1e-6)
    assert codec.upper == pytest.approx((0.42, 1.01 + half, 1.0), abs=1e-6)


def test_holding_still_after_the_end() -> None:
    last = np.array([0.5, -0.25, -1.0], np.float32)
    assert still(last, DELTA).tolist() == [0.0, 0.0, -1.0]
    assert still(last, None).tolist() == last.tolist()
