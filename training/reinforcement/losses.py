"""The clipped surrogate on action tokens, and which tokens count.

The ratio is taken per action token unless asked otherwise; clip range 0.2 below and 0.28 above ("clip higher", DAPO,
Yu et al. 2025); the loss is the mean over a trajectory's valid tokens, then over trajectories. Weights that sum to 1
express that mean, so that a batch can be cut into pieces of any size whose losses add up to the same number.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

# Keeps a runaway ratio finite in float32; the clip has removed its gradient long before, or it dwarfs all others.
LARGEST_LOG_RATIO = 20.0

Aggregation = Literal["trajectory_mean", "token_mean", "constant"]
RatioOf = Literal["token", "chunk"]


def token_mask(
    trajectory: np.ndarray, chunk: np.ndarray, steps: np.ndarray, *, chunk_steps: int, knots: int, action_dim: int
) -> np.ndarray:
    """Returns bool (F, K, A): whether a frame's token had any effect before its episode finished.

    trajectory, chunk: (F,). steps: (N,), control steps up to and including the finish. Knot k of chunk c drives
    the control steps from c T + k T/K on, counted from 0; its tokens count when the first of them was played.
    """
    first = chunk[:, None] * chunk_steps + np.arange(knots) * (chunk_steps // knots)
    valid = first < steps[trajectory][:, None]
    return np.repeat(valid[:, :, None], action_dim, axis=2)


def token_weights(mask: np.ndarray, trajectory: np.ndarray, count: int, aggregation: Aggregation) -> np.ndarray:
    """Returns float32 (F, K, A) weights of the valid tokens of `count` trajectories; others weigh 0.

    trajectory_mean: every trajectory weighs the same (the paper). token_mean: every token does (DAPO). Both sum to 1.
    constant: every token weighs one over `count` times the most tokens that a trajectory has, so that a long failure
    is not diluted by its own length (Dr.GRPO, Liu et al. 2025).
    """
    if aggregation == "token_mean":
        return (mask / max(mask.sum(), 1)).astype(np.float32)
    tokens = np.bincount(trajectory, weights=mask.sum(axis=(1, 2)), minlength=count)
    if aggregation == "constant":
        return (mask / max(tokens.max() * count, 1)).astype(np.float32)
    return (mask / np.maximum(tokens, 1)[trajectory][:, None, None] / count).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class SurrogateLoss:
    """The loss to differentiate, and detached sums over the valid tokens, to be divided by `tokens`.

    clipped: tokens whose gradient the clip removed. kl: the k3 estimate (Schulman 2020) of KL(old, new), [nat].
    """

    loss: Tensor
    clipped: float
    kl: float
    ratio: float
    tokens: float


def clipped_surrogate(
    new_log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    weights: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    ratio_of: RatioOf = "token",
) -> SurrogateLoss:
    """Returns the weighted sum of -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A).

    log-probabilities and weights: (F, K, A); advantages: (F,), the decision's. Tokens of weight 0 are masked.
    ratio_of chunk: r is the geometric mean of a decision's ratios (GSPO, Zheng et al. 2025, whose sequence is a whole
    answer; here it is what the policy decides at once).
    """
    # A masked token may have any ratio: its overflow would be a NaN in the gradient, even under a weight of 0.
    valid = weights > 0
    log_ratio = torch.where(valid, new_log_probs - old_log_probs, torch.zeros_like(new_log_probs))
    if ratio_of == "chunk":
        mean = log_ratio.sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)
        log_ratio = torch.where(valid, mean[:, None, None], log_ratio)
    ratio = log_ratio.clamp(max=LARGEST_LOG_RATIO).exp()
    advantage = advantages[:, None, None]
    free = ratio * advantage
    held = ratio.clamp(1 - clip_low, 1 + clip_high) * advantage
    loss = -(weights * torch.minimum(free, held)).sum()
    with torch.no_grad():
        return SurrogateLoss(
            loss=loss,
            clipped=float(((held < free) & valid).sum()),
            kl=float((ratio - 1 - log_ratio)[valid].sum()),
            ratio=float(ratio[valid].sum()),
            tokens=float(valid.sum()),
        )


def k3(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """Returns the k3 estimate of KL(policy, reference) [nat] for each token sampled from the policy."""
    log_ratio = reference_log_probs - log_probs
    return log_ratio.exp() - 1 - log_ratio
