"""What is fitted to demonstrations: the bins of the action codec, against ranges worked out by hand."""

import numpy as np
import pytest

from rehearsal.spec import ActionSpec
from training.imitation.demonstration_set import CODEC_RANGE_FLOOR, DemonstrationSet, fit_codec


def demonstrations() -> DemonstrationSet:
    """Two decision points with chunks of four steps: a joint that moves, one that hardly does, and a gripper."""
    state = np.array([[0.1, 1.0, 0.0], [0.5, 1.0, 0.02]], np.float32)
    offsets = np.array([[[0.1], [0.2], [0.3], [0.4]], [[-0.1], [-0.2], [-0.3], [-0.4]]])
    actions = np.concatenate([state[:, None, :1] + offsets, np.full((2, 4, 1), 1.01), np.full((2, 4, 1), 0.03)], axis=2)
    return DemonstrationSet(
        images=np.zeros((2, 1, 16, 16, 3), np.uint8),
        state=state,
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
