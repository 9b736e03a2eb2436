"""The ordinal head against mixtures of Gaussians over the bins worked out with numpy."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from training.imitation.sft import token_loss
from training.policies.compact import CompactPolicy, CompactPolicyConfig, OrdinalHead

QUERY = torch.zeros(1, 1, 32)


def fresh_head(bins: int, modes: int) -> OrdinalHead:
    """Returns the head of a fresh policy with one action dimension."""
    config = CompactPolicyConfig(
        side_px=32, state_dim=3, action_dim=1, bins=bins, width=32, heads=2, std_floor_bins=0.5, modes=modes
    )
    head = CompactPolicy.new(config, seed=0).head
    assert isinstance(head, OrdinalHead)
    return head


def head_with(offsets: Sequence[float], log_stds: Sequence[float], weights: Sequence[float]) -> OrdinalHead:
    """Returns a head of 16 bins that gives these outputs whatever the query, one of each for every mode."""
    head = fresh_head(16, len(offsets))
    with torch.no_grad():
        head.out.weight.zero_()
        head.out.bias.copy_(torch.tensor([*offsets, *log_stds, *weights]))
    return head


def logits_of(head: OrdinalHead) -> np.ndarray:
    with torch.no_grad():
        logits = head(QUERY)
    assert logits.shape[:3] == (1, 1, 1) and logits.dtype == torch.float32
    return logits.flatten().double().numpy()


def probabilities(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


def test_one_mode_is_a_gaussian_over_the_bins() -> None:
    """Output 0.25 and log std log 2 with 16 bins: mean 8 (1 + 1.2 x 0.25) - 0.5 = 9.9, so bin 10 is the nearest."""
    logits = logits_of(head_with([0.25], [math.log(2.0)], [7.0]))  # the only mode's weight changes nothing
    expected = np.exp(-((np.arange(16) - 9.9) ** 2) / (2 * 2.0**2))
    np.testing.assert_allclose(probabilities(logits), expected / expected.sum(), rtol=1e-5)
    assert logits.max() == pytest.approx(0, abs=1e-6)
    assert logits.argmax() == 10


def test_three_modes_are_their_weighted_gaussians() -> None:
    """Offsets -0.5, 0.25 and 0.75 are means 2.7, 9.9 and 14.7, nearest to bins 3, 10 and 15.

    Each Gaussian is 1 at its nearest bin, which lifts it by exp((nearest - mean)^2 / (2 std^2)): a few percent here.
    """
    means, nearest, stds = np.array([2.7, 9.9, 14.7]), np.array([3, 10, 15]), np.array([1.0, 2.0, 0.75])
    scores = np.array([0.3, -0.2, 1.1])
    weights = np.exp(scores) / np.exp(scores).sum()
    bins = np.arange(16)[:, None]
    lifted = np.exp(((nearest - means) ** 2 - (bins - means) ** 2) / (2 * stds**2))
    density = (weights / stds * lifted).sum(axis=1)
    found = probabilities(logits_of(head_with([-0.5, 0.25, 0.75], np.log(stds).tolist(), scores.tolist())))
    assert found.sum() == pytest.approx(1)
    np.testing.assert_allclose(found, density / density.sum(), rtol=1e-4)
    plain = (weights / stds * np.exp(-((bins - means) ** 2) / (2 * stds**2))).sum(axis=1)
    assert np.abs(found - plain / plain.sum()).max() < 0.01


@pytest.mark.parametrize(("weights", "bin_"), [([0.2, 0.7, 0.1], 3), ([0.7, 0.2, 0.1], 10), ([0.1, 0.2, 0.7], 15)])
def test_the_most_likely_bin_is_that_of_the_heaviest_mode(weights: list[float], bin_: int) -> None:
    logits = logits_of(head_with([0.25, -0.5, 0.75], [0.0, 0.0, 0.0], np.log(weights).tolist()))
    assert logits.argmax() == bin_


def fit_two_answers(modes: int) -> np.ndarray:
    """Returns probabilities of 32 bins after fitting tokens of which half are 6 and half 26."""
    head = fresh_head(32, modes)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.03)
    tokens = torch.tensor([6, 26]).view(2, 1, 1)
    for _ in range(300):
        optimiser.zero_grad()
        token_loss(head(QUERY.expand(2, -1, -1)), tokens, 0.0).backward()
        optimiser.step()
    return probabilities(logits_of(head))


def test_three_modes_hesitate_between_two_answers_and_one_averages_them() -> None:
    """Two Gaussians at the floor of 0.5 bins: each has 1 / (1 + 2 exp(-2)) = 0.787 of its half at its own bin."""
    three, one = fit_two_answers(3), fit_two_answers(1)
    assert three[[6, 26]] == pytest.approx([0.39, 0.39], abs=0.06)
    assert three[10:23].sum() < 0.02
    assert one[10:23].sum() > 0.35
    assert 10 <= one.argmax() <= 22


def test_std_has_a_floor_and_logits_stay_finite_far_outside() -> None:
    for modes in (1, 3):
        logits = logits_of(head_with([50.0] * modes, [-30.0] * modes, [0.0] * modes))
        assert np.isfinite(logits).all()
        assert logits.argmax() == 15


def test_gradient_of_one_mode_is_that_of_the_plain_gaussian() -> None:
    """Logits measured from the nearest bin shift all by the same number, which no softmax sees."""
    outputs = torch.tensor([0.31, 1.1], dtype=torch.float64, requires_grad=True)
    mean, std = 8 * (1 + 1.2 * outputs[0]) - 0.5, outputs[1].exp()
    plain = -((torch.arange(16) - mean) ** 2) / (2 * std**2)
    plain.log_softmax(0)[3].backward()
    head = head_with([0.31], [1.1], [0.0])
    head(QUERY).flatten().log_softmax(0)[3].backward()
    assert head.out.bias.grad is not None and outputs.grad is not None
    assert torch.allclose(head.out.bias.grad[:2].double(), outputs.grad, rtol=1e-4)


def test_a_fresh_head_is_wide_and_centred_whatever_its_modes() -> None:
    for modes in (1, 3):
        found = probabilities(logits_of(fresh_head(32, modes)))
        mean = found @ np.arange(32)
        assert mean == pytest.approx(15.5, abs=1)
        assert 3.5 < math.sqrt(found @ (np.arange(32) - mean) ** 2) < 6
