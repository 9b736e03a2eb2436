"""Advantages, masks, weights, ratios and clipping, each against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.reinforcement.advantages import group_advantages
from training.reinforcement.losses import clipped_surrogate, k3, token_mask, token_weights


def test_advantages_of_one_success_in_four() -> None:
    """Mean 1/4; unbiased variance (9/16 + 3/16) / 3 = 1/4; so 0.75 / 0.5 = 1.5 and -0.25 / 0.5 = -0.5."""
    assert group_advantages(np.array([1.0, 0, 0, 0]), 4) == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-5)


def test_advantages_are_taken_within_each_group_and_uniform_groups_have_none() -> None:
    rewards = np.array([1.0, 0, 1, 1, 0, 0])
    expected = [1 / math.sqrt(2), -1 / math.sqrt(2), 0, 0, 0, 0]
    assert group_advantages(rewards, 2) == pytest.approx(expected, abs=1e-5)


def test_reward_scale_cancels() -> None:
    rewards = np.array([1.0, 0, 0, 1, 1, 0, 0, 0])
    assert group_advantages(5 * rewards, 8) == pytest.approx(group_advantages(rewards, 8), abs=1e-5)


@pytest.mark.parametrize(("count", "size"), [(5, 2), (4, 1)])
def test_groups_that_do_not_fit_are_refused(count: int, size: int) -> None:
    with pytest.raises(ValueError, match="do not make groups"):
        group_advantages(np.zeros(count), size)


@pytest.mark.parametrize(
    ("steps", "valid"),
    [
        (1, [[True, False], [False, False]]),
        (4, [[True, False], [False, False]]),
        (5, [[True, True], [False, False]]),
        (8, [[True, True], [False, False]]),
        (9, [[True, True], [True, False]]),
        (12, [[True, True], [True, False]]),
        (13, [[True, True], [True, True]]),
        (16, [[True, True], [True, True]]),
    ],
)
def test_tokens_after_the_finish_are_masked_by_knot(steps: int, valid: list[list[bool]]) -> None:
    """Chunks of 8 steps with 2 knots: the knots begin at steps 0, 4, 8 and 12, counted from 0."""
    mask = token_mask(np.array([0, 0]), np.array([0, 1]), np.array([steps]), chunk_steps=8, knots=2, action_dim=3)
    assert mask.shape == (2, 2, 3)
    assert mask.all(axis=2).tolist() == valid
    assert mask.any(axis=2).tolist() == valid


def test_weights_are_the_mean_over_tokens_and_then_over_trajectories() -> None:
    """Trajectory 0 has 2 valid tokens and trajectory 1 has 4: each weighs 1/2."""
    mask = np.array([[[True, True], [False, False]], [[True, True], [True, True]]])
    by_trajectory = token_weights(mask, np.array([0, 1]), 2, "trajectory_mean")
    assert by_trajectory[0].tolist() == [[0.25, 0.25], [0, 0]]
    assert by_trajectory[1].tolist() == [[0.125, 0.125], [0.125, 0.125]]
    by_token = token_weights(mask, np.array([0, 1]), 2, "token_mean")
    assert by_token[mask] == pytest.approx(np.full(6, 1 / 6))


@given(st.lists(st.integers(1, 24), min_size=1, max_size=6))
def test_weights_sum_to_one(steps: list[int]) -> None:
    chunks = [-(-s // 8) for s in steps]
    trajectory = np.repeat(np.arange(len(steps)), chunks)
    chunk = np.concatenate([np.arange(c) for c in chunks])
    mask = token_mask(trajectory, chunk, np.array(steps), chunk_steps=8, knots=4, action_dim=2)
    for aggregation in ("trajectory_mean", "token_mean"):
        assert token_weights(mask, trajectory, len(steps), aggregation).sum() == pytest.approx(1, rel=1e-5)


def one_token(ratio: float, advantage: float) -> tuple[float, float, float]:
    """Returns loss, its derivative by the log-probability, and the clipped count, of one token."""
    new = torch.tensor([[[math.log(ratio)]]], dtype=torch.float64, requires_grad=True)
    found = clipped_surrogate(
        new, torch.zeros(1, 1, 1, dtype=torch.float64), torch.tensor([advantage], dtype=torch.float64),
        torch.ones(1, 1, 1, dtype=torch.float64), clip_low=0.2, clip_high=0.28,
    )  # fmt: skip
    found.loss.backward()
    assert new.grad is not None
    return float(found.loss.detach()), float(new.grad), found.clipped


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        (1.0, 2.0, -2.0, -2.0, 0),
        (1.27, 2.0, -2.54, -2.54, 0),
        (1.5, 2.0, -2.56, 0.0, 1),  # -min(3, 1.28 x 2)
        (0.5, 2.0, -1.0, -1.0, 0),  # below the range but the smaller of the two: not clipped
        (1.5, -2.0, 3.0, 3.0, 0),  # -min(-3, -2.56): a bad token grown likely is pushed back
        (0.81, -2.0, 1.62, 1.62, 0),
        (0.5, -2.0, 1.6, 0.0, 1),  # -min(-1, 0.8 x -2)
    ],
)
def test_clipped_surrogate_of_one_token(
    ratio: float, advantage: float, loss: float, gradient: float, clipped: int
) -> None:
    found = one_token(ratio, advantage)
    assert found[:2] == pytest.approx((loss, gradient))
    assert found[2] == clipped


def test_masked_tokens_change_nothing_however_wild() -> None:
    new = torch.tensor([[[math.log(1.1), 200.0]]], requires_grad=True)
    found = clipped_surrogate(
        new, torch.zeros(1, 1, 2), torch.tensor([-1.0]), torch.tensor([[[1.0, 0.0]]]), clip_low=0.2, clip_high=0.28
    )
    found.loss.backward()
    assert float(found.loss.detach()) == pytest.approx(1.1)
    assert new.grad is not None and new.grad.flatten().tolist() == pytest.approx([1.1, 0.0])
    assert found.tokens == 1
    assert found.ratio == pytest.approx(1.1)
    assert found.kl == pytest.approx(1.1 - 1 - math.log(1.1), abs=1e-6)


def test_gradient_agrees_with_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (5, 2, 3)
    old = torch.randn(shape, generator=generator, dtype=torch.float64) - 3
    new = old + 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    advantages = torch.randn(5, generator=generator, dtype=torch.float64)
    weights = torch.rand(shape, generator=generator, dtype=torch.float64)
    weights[1, 1] = 0

    def loss(log_probs: torch.Tensor) -> torch.Tensor:
        return clipped_surrogate(log_probs, old, advantages, weights, clip_low=0.2, clip_high=0.28).loss

    assert torch.autograd.gradcheck(loss, (new.requires_grad_(),))


def test_k3_is_zero_for_equal_policies_and_positive_otherwise() -> None:
    """For log ratio log 2 it is 2 - 1 - log 2."""
    log_probs = torch.tensor([-1.0, -1.0])
    reference = torch.tensor([-1.0, -1.0 + math.log(2.0)])
    assert k3(log_probs, reference).tolist() == pytest.approx([0.0, 1 - math.log(2.0)])
