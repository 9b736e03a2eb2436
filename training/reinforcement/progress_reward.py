"""Progress of failed trajectories, measured against successful ones of the same batch (after SRPO, Fei et al. 2025).

A binary reward says nothing of how far a failure came, and a group of failures carries no gradient. Here a failure
earns the share of the way that it came towards the pictures in which successes ended: with d the distance between what
the policy saw at a decision and what a success saw at its last one, 1 - min d / d at the start, times a weight below
one, so that no failure ever ranks above a success.

Departs from the paper: it measures distances in the latent space of a video world model and clusters the successes;
here what is compared is what the policy itself gets, its pictures averaged down to a few cells and its normalised
state, and the nearest success is taken, of the same scenario where it has one.
"""

import numpy as np

from training.reinforcement.trajectory import Trajectories

CELLS = 8
"""Side of the averaged pictures: coarse enough that an arm and an object some pixels off still look alike."""


def progress_rewards(batch: Trajectories, weight: float) -> np.ndarray:
    """Returns rewards float64 (N,): 1 for a success, weight x progress in [0, weight] for a failure.

    Without a success in the batch there is nothing to measure against, and failures earn 0.
    """
    rewards = batch.rewards
    winners = np.flatnonzero(batch.success)
    if not len(winners) or not weight:
        return rewards
    features = frame_features(batch.inputs)
    ends = np.stack([features[batch.rows(winner)[-1]] for winner in winners])
    for loser in np.flatnonzero(~batch.success):
        same = batch.seed[winners] == batch.seed[loser]
        goals = ends[same] if same.any() else ends
        own = features[batch.rows(loser)]
        distance = np.linalg.norm(own[:, None] - goals[None], axis=2)
        goal = distance.min(axis=0).argmin()
        start, nearest = distance[0, goal], distance[:, goal].min()
        rewards[loser] = weight * (1 - nearest / start) if start > 0 else weight
    return rewards


def frame_features(inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Returns float32 (F, D): pictures in CELLS x CELLS averages beside the normalised state, each with equal say.

    inputs: a model's, with images uint8 (F, cameras, side, side, 3) and state float32 (F, S).
    """
    images, state = inputs["images"], inputs["state"]
    frames, cameras, side = images.shape[:3]
    cells = min(CELLS, side)
    cut = side - side % cells
    blocks = images[:, :, :cut, :cut].reshape(frames, cameras, cells, cut // cells, cells, cut // cells, 3)
    pictures = blocks.mean(axis=(3, 5), dtype=np.float32).reshape(frames, -1)
    return np.concatenate([_scaled(pictures), _scaled(state)], axis=1)


def _scaled(values: np.ndarray) -> np.ndarray:
    """Returns values (F, D) whose variance over the frames sums to one over the dimensions."""
    spread = np.sqrt(values.var(axis=0).sum())
    return (values / max(float(spread), 1e-6)).astype(np.float32)
