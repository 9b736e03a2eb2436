"""Group-relative advantages (GRPO, Shao et al. 2024, as SimpleVLA-RL uses them)."""

import numpy as np

# Keeps a group of equal rewards finite: its advantages are 0.
EPSILON = 1e-6


def group_advantages(rewards: np.ndarray, group_size: int) -> np.ndarray:
    """Returns (reward - mean) / (std + 1e-6) of each trajectory within its group, float64 (N,).

    rewards: (N,), the trajectories of a group side by side. std is the unbiased one (divided by size - 1).
    """
    if group_size < 2 or len(rewards) % group_size:
        raise ValueError(f"{len(rewards)} rewards do not make groups of {group_size} (at least 2)")
    groups = np.asarray(rewards, dtype=np.float64).reshape(-1, group_size)
    mean = groups.mean(axis=1, keepdims=True)
    std = groups.std(axis=1, ddof=1, keepdims=True)
    return ((groups - mean) / (std + EPSILON)).reshape(-1)
