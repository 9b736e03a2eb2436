"""What a decision was worth: relative to its group (GRPO, Shao et al. 2024), or to a critic (GAE)."""

from typing import Literal

import numpy as np

from training.reinforcement.trajectory import Trajectories

AdvantageScale = Literal["std", "none"]

# Keeps a group of equal rewards finite: its advantages are 0.
EPSILON = 1e-6


def group_advantages(rewards: np.ndarray, group_size: int, scale: AdvantageScale = "std") -> np.ndarray:
    """Returns (reward - mean) / (std + 1e-6) of each trajectory within its group, float64 (N,).

    rewards: (N,), the trajectories of a group side by side. std is the unbiased one (divided by size - 1).
    scale none: reward - mean alone, so that a group of rare successes does not weigh more than one of half (Dr.GRPO,
    Liu et al. 2025).
    """
    if group_size < 2 or len(rewards) % group_size:
        raise ValueError(f"{len(rewards)} rewards do not make groups of {group_size} (at least 2)")
    groups = np.asarray(rewards, dtype=np.float64).reshape(-1, group_size)
    mean = groups.mean(axis=1, keepdims=True)
    if scale == "none":
        return (groups - mean).reshape(-1)
    std = groups.std(axis=1, ddof=1, keepdims=True)
    return ((groups - mean) / (std + EPSILON)).reshape(-1)


def generalised_advantages(
    batch: Trajectories, values: np.ndarray, *, reward: float, discount: float, trace: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns advantages and returns, float64 (F,), one a decision (GAE, Schulman et al. 2016, on chunks).

    values: (F,), the critic's. reward: of success, at the decision that finished; nothing else is rewarded. An
    episode that reaches its horizon has failed: its value after the last decision is 0, as after a success.
    """
    advantages = np.zeros(batch.frames)
    ends = np.where(batch.success, reward, 0.0)
    last = np.zeros(len(batch), dtype=np.int64)
    np.maximum.at(last, batch.trajectory, batch.chunk)
    ahead, value_ahead = np.zeros(len(batch)), np.zeros(len(batch))
    for chunk in range(int(last.max()), -1, -1):
        rows = np.flatnonzero(batch.chunk == chunk)
        of = batch.trajectory[rows]
        gain = np.where(last[of] == chunk, ends[of], 0.0)
        ahead[of] = gain + discount * value_ahead[of] - values[rows] + discount * trace * ahead[of]
        advantages[rows], value_ahead[of] = ahead[of], values[rows]
    return advantages, advantages + values
