"""Trained and untrained language-model heads, told apart on synthetic logits."""

import math
from pathlib import Path

import numpy as np
import pytest

from rehearsal.errors import RehearsalError
from training.policies.openvla.token_head import judge_token_head

BINS = np.arange(256)


def demonstrated(seed: int, chunks: int = 1) -> np.ndarray:
    """Returns tokens int64 (chunks, 8, 7) as LIBERO's are: near the middle, a gripper at the middle or the end."""
    rng = np.random.default_rng(seed)
    tokens = rng.normal(127, 25, (chunks, 8, 7)).astype(int).clip(0, 255)
    tokens[..., 6] = np.where(rng.random((chunks, 1)) < 0.5, 127, 255)
    return tokens


def peaked(centres: np.ndarray, std_bins: float) -> np.ndarray:
    """Returns logits (..., 256) of Gaussians about centres (...)."""
    return -0.5 * ((BINS - centres[..., None]) / std_bins) ** 2


def test_the_numbers_by_hand() -> None:
    """Two tokens: one gets half of the probability, the other none; an even guess is near 10 in 11 of 256 answers."""
    logits = np.full((2, 256), -1e9)
    logits[0, [10, 200]] = 0.0
    logits[1, 100] = 0.0
    found = judge_token_head(logits, np.array([10, 104]))
    assert found.tokens == 2 and found.near == 1.0
    assert found.gain_nat == pytest.approx((math.log((1 + 256 * 0.5) / 2) + math.log(0.5)) / 2)
    assert found.entropy_nat == pytest.approx(math.log(2) / 2)
    # Paired at random the answers 10 and 100 are near 10 and 104 in half of the pairs, an even guess in 11 of 256.
    assert found.chance == 0.5


@pytest.mark.parametrize("std_bins", [1.0, 5.0, 20.0, 60.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_head_that_knows_the_action_is_trained(std_bins: float, seed: int) -> None:
    tokens = demonstrated(seed)
    error = np.random.default_rng(seed).normal(0, min(std_bins / 4, 3), tokens.shape)
    assert judge_token_head(peaked(tokens + error, std_bins), tokens).trained


def test_a_few_confident_mistakes_do_not_outweigh_all_that_is_known() -> None:
    """Four of five tokens right and one surely wrong: a plain log-likelihood is far below that of an even guess."""
    tokens = demonstrated(0)
    wrong = np.random.default_rng(1).random(tokens.shape) < 0.2
    logits = peaked(np.where(wrong, 255 - tokens, tokens), 0.5)
    right = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    assert np.take_along_axis(right, tokens[..., None], -1).mean() < -math.log(256) - 10
    assert judge_token_head(logits, tokens).trained


@pytest.mark.parametrize(("error_bins", "std_bins"), [(20, 3.0), (20, 1.0), (40, 10.0)])
def test_a_head_too_sure_of_itself_is_trained(error_bins: float, std_bins: float) -> None:
    """As after SFT on one trajectory, seen on another: off by more than its peaks are wide, and far from chance."""
    tokens = demonstrated(0, chunks=20)
    error = np.random.default_rng(0).normal(0, error_bins, tokens.shape)
    assert judge_token_head(peaked((tokens + error).clip(0, 255), std_bins), tokens).trained


def test_a_demonstration_that_does_not_move_tells_nothing() -> None:
    tokens = np.full((10, 8, 7), 127)
    found = judge_token_head(peaked(tokens, 3.0), tokens)
    assert found.near == found.chance == found.least_near == 1.0
    with pytest.raises(RehearsalError, match="the demonstration hardly moves, .* take one that moves"):
        found.check(Path("runs/x"))
    with pytest.raises(RehearsalError, match="runs/x cannot be reinforced: its probabilities are flat"):
        judge_token_head(np.zeros((*tokens.shape, 256)), tokens).check(Path("runs/x"))


@pytest.mark.parametrize("chunks", [1, 4])
@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 5.0, 30.0])
def test_no_head_that_knows_nothing_passes(scale: float, chunks: int) -> None:
    """Random logits, the same ones at every place, and peaks that depend on the place alone."""
    for seed in range(40 // chunks):
        rng, tokens = np.random.default_rng([seed, 7]), demonstrated(seed, chunks)
        random = rng.normal(0, scale, (*tokens.shape, 256))
        constant = np.broadcast_to(rng.normal(0, scale, 256), random.shape)
        places = np.broadcast_to(rng.integers(0, 256, tokens.shape[1:]), tokens.shape)
        still = peaked(np.full(tokens.shape, 127), max(scale, 1.0))
        for logits in (random, constant, peaked(places, max(scale, 1.0)), still):
            assert not judge_token_head(logits, tokens).trained


def test_the_refusal_says_why() -> None:
    tokens = demonstrated(0, chunks=4)
    flat = judge_token_head(np.zeros((*tokens.shape, 256)), tokens)
    with pytest.raises(RehearsalError, match=r"runs/x cannot be reinforced: its probabilities are flat .*chance 4%"):
        flat.check(Path("runs/x"))
    wrong = judge_token_head(peaked((tokens + 128) % 256, 3.0), tokens)
    with pytest.raises(RehearsalError, match=r"on other tokens \(0% of 224 .*sft.py --checkpoint runs/x"):
        wrong.check(Path("runs/x"))
    # Knows which values are demonstrated, as one that learned nothing of what it sees: the same answer everywhere.
    counts = np.log(np.bincount(tokens.ravel(), minlength=256) + 0.1)
    with pytest.raises(RehearsalError, match="its answers do not follow the demonstration"):
        judge_token_head(np.broadcast_to(counts, (*tokens.shape, 256)), tokens).check(Path("runs/x"))
    judge_token_head(peaked(tokens, 10.0), tokens).check(Path("runs/x"))
