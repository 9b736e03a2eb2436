"""Whether a language-model head was ever trained for action tokens, seen on what a demonstrator did.

OpenVLA-OFT's published fine-tuning regresses actions with an L1 head and leaves the language model's head as it was.
Such a checkpoint acts well through its L1 head; its tokens know nothing, succeed never, and so give reinforcement no
gradient for ever. Its weights look like any other's. What tells is a demonstrated chunk: the probabilities that the
head gives to the demonstrated tokens are then flat, or on other tokens.

Two numbers, both of which a trained head passes by far and an untrained one does not:

- the gain: the mean over tokens of log((1 + 256 p) / 2), p the probability of the demonstrated token among the 256.
  It is 0 for a flat head, and below 0 on average for any head that does not know the action, however sure of itself
  (Jensen). The half of an even guess bounds what one token can cost to 0.7 nat, where a plain log-likelihood would
  let a few confident mistakes of a good policy outweigh all that it knows. It is the best over a few temperatures: a
  head that one trajectory made far too sure of itself knows more than its sharp peaks show on another one, and no
  temperature helps one that knows nothing (640 synthetic ones, random or of peaks at random bins, judged by 56 tokens
  each: at most 0.25 nat);
- the share of tokens whose likeliest bin is within 5 bins of the demonstrated one, against chance: what an even guess
  has, or the same answers paired with the same tokens at random if that is more. So a head that always says the same
  gains nothing by a demonstration that hardly moves.
"""

import math
from pathlib import Path

import msgspec
import numpy as np

from rehearsal.errors import RehearsalError

NEAR_BINS = 5
TEMPERATURES = (1, 2, 4, 8, 16, 32, 64)
"""Divide the logits; a peak's standard deviation grows with the square root, so up to eightfold."""
LEAST_GAIN_NAT = 0.2
"""A Gaussian about the demonstrated token gains so much when its standard deviation is 110 bins, and 1.2 at 20 bins."""
CHANCE_DEVIATIONS = 3.0
"""Standard deviations by which the share of near tokens must exceed chance."""


class TokenHead(msgspec.Struct, frozen=True, kw_only=True):
    """tokens: how many were judged. gain_nat, near, chance: as above; shares in [0, 1].

    entropy_nat: mean over tokens; the flattest distribution over 256 bins has 5.55.
    """

    tokens: int
    bins: int
    gain_nat: float
    near: float
    chance: float
    entropy_nat: float

    @property
    def least_near(self) -> float:
        """The share of near tokens that chance does not reach; from 1 on the demonstration cannot tell."""
        return self.chance + CHANCE_DEVIATIONS * math.sqrt(self.chance * (1 - self.chance) / self.tokens)

    @property
    def trained(self) -> bool:
        return self.gain_nat >= LEAST_GAIN_NAT and self.near > self.least_near

    def __str__(self) -> str:
        return (
            f"{self.near:.0%} of {self.tokens} demonstrated tokens within {NEAR_BINS} bins (chance {self.chance:.0%}), "
            f"gain over an even guess {self.gain_nat:.2f} nat"
        )

    def check(self, folder: Path) -> None:
        """Raises RehearsalError when the policy in `folder` has no trained action tokens."""
        if self.trained:
            return
        if self.gain_nat >= LEAST_GAIN_NAT and self.least_near >= 1:
            raise RehearsalError(
                f"the demonstration hardly moves, so that it cannot tell whether {folder} knows its actions ({self}): "
                "take one that moves"
            )
        if self.gain_nat >= LEAST_GAIN_NAT:
            reason = "its answers do not follow the demonstration"
        elif math.log(self.bins) - self.entropy_nat < LEAST_GAIN_NAT:
            reason = "its probabilities are flat"
        else:
            reason = "its probabilities are on other tokens"
        raise RehearsalError(
            f"{folder} cannot be reinforced: {reason} ({self}), as where an L1 head was trained in place of tokens: "
            f"fine-tune its action tokens first: python training/sft.py --checkpoint {folder}"
        )


def judge_token_head(logits: np.ndarray, tokens: np.ndarray) -> TokenHead:
    """Judges action logits (..., bins) by the demonstrated tokens (...), of one chunk or more."""
    bins = logits.shape[-1]
    logits, tokens = logits.reshape(-1, bins).astype(np.float64), tokens.reshape(-1)
    probabilities = _softmax(logits)
    entropy = -(probabilities * np.log(probabilities.clip(min=np.finfo(float).tiny))).sum(axis=-1)
    # Of each bin that could be the answer, the share of the demonstrated tokens that it would be near to.
    answers, counts = logits.argmax(axis=-1), np.bincount(tokens, minlength=bins)
    nearby = np.convolve(counts, np.ones(2 * NEAR_BINS + 1), mode="same") / len(tokens)
    return TokenHead(
        tokens=len(tokens),
        bins=bins,
        gain_nat=max(_gain(logits / temperature, tokens) for temperature in TEMPERATURES),
        near=float((np.abs(answers - tokens) <= NEAR_BINS).mean()),
        chance=float(max(nearby.mean(), nearby[answers].mean())),
        entropy_nat=float(entropy.mean()),
    )


def _softmax(logits: np.ndarray) -> np.ndarray:
    """logits: (N, bins)."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _gain(logits: np.ndarray, tokens: np.ndarray) -> float:
    """Returns the mean gain [nat] over an even guess; logits: (N, bins), tokens: (N,)."""
    demonstrated = np.take_along_axis(_softmax(logits), tokens[:, None], axis=-1)
    return float(np.log((1 + logits.shape[-1] * demonstrated) / 2).mean())
