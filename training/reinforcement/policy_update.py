"""Optimiser steps on a batch of trajectories by the clipped surrogate: what GRPO and PPO share.

A recipe says what each decision was worth (its advantage); this says how the policy moves. The old log-probabilities
are the rollout's own, so a frame passes the policy three times in all: in the rollout, and forward and backward here.
"""

from collections import defaultdict
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from training.engine.engine import Engine
from training.engine.shares import Share, shares
from training.policies.learning_policy import LearningPolicy
from training.policies.token_distribution import log_probs, log_probs_and_entropy
from training.policies.trained_policy import TrainedPolicy, to_tensors
from training.reinforcement.losses import (
    Aggregation,
    RatioOf,
    clipped_surrogate,
    k3,
    token_mask,
    token_weights,
)
from training.reinforcement.trajectory import Trajectories

SHUFFLE = 4
"""Purpose of random numbers, so that no two ever share a seed."""


class SurrogateConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of sampling and of the clipped surrogate, the same for every recipe; the defaults are SimpleVLA-RL's."""

    seed: int = 0
    """Seed of sampling and of minibatches."""
    steps: int = 100
    """Batches to learn from."""
    control_steps: int = 0
    """Stop after the batch that brings the control steps simulated for training to this many; 0: no such limit."""
    temperature: float = 1.6
    """Divides the logits, in sampling and in scoring alike."""
    clip_low: float = 0.2
    clip_high: float = 0.28
    """The ratio of a token is clipped to 1 - clip_low and 1 + clip_high."""
    ratio_of: RatioOf = "token"
    """token: each token has a ratio of its own; chunk: all tokens of a decision share their geometric mean (GSPO)."""
    learning_rate: float = 5e-6
    """Constant after the warm-up."""
    warmup_steps: int = 0
    """Steps over which the rate rises linearly: Adam's first steps, before its averages settle, are far too long."""
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    """Largest norm of the gradient."""
    minibatches: int = 4
    """Optimiser steps over a batch, each on its share of the trajectories."""
    epochs: int = 1
    """Passes over a batch."""
    aggregation: Aggregation = "trajectory_mean"
    """trajectory_mean: every trajectory weighs the same; token_mean: every token does; constant: every token weighs
    one over the most tokens that a trajectory of the batch has (Dr.GRPO)."""
    kl_coefficient: float = 0.0
    """Weight of the KL divergence to the policy before reinforcement; 0: no reference model is kept."""
    entropy_coefficient: float = 0.0
    """Weight of the entropy bonus."""
    frames_a_forward: int = 512
    """Frames in one pass through the policy; bounds memory and changes nothing else."""

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        if self.minibatches < 1 or self.epochs < 1 or self.frames_a_forward < 1:
            raise ValueError("minibatches, epochs and frames_a_forward must be at least 1")


class PolicyUpdate:
    """Holds the policy in training and the reference; `learn` makes a batch's optimiser steps."""

    def __init__(self, policy: TrainedPolicy, config: SurrogateConfig, engine: Engine | None = None) -> None:
        """engine: plain torch by default."""
        self.config = config
        self.learning = LearningPolicy(
            policy, engine, learning_rate=config.learning_rate, weight_decay=config.weight_decay
        )
        self.policy, self.engine, self.trained = policy, self.learning.engine, self.learning.trained
        self.reference = policy.duplicate() if config.kl_coefficient else None

    @property
    def optimiser(self) -> torch.optim.Optimizer:
        return self.learning.optimiser

    def learn(self, batch: Trajectories, advantages: np.ndarray, step: int) -> dict[str, float]:
        """Makes epochs x minibatches optimiser steps; returns means over all of the valid tokens.

        batch: the same in every process. advantages: (F,), one a frame. step: batches learned from before, which
        fixes rate and order.
        """
        config = self.config
        sums: dict[str, float] = dict.fromkeys(("clipped", "kl", "ratio", "entropy", "tokens", "loss"), 0.0)
        norms = []
        self.learning.begin(config.learning_rate * min(1.0, (step + 1) / max(config.warmup_steps, 1)))
        for epoch in range(config.epochs):
            for chosen in minibatches(len(batch), config.minibatches, (config.seed, SHUFFLE, step, epoch)):
                part, rows = batch.select(chosen), batch.rows(chosen)
                for name, value in self._minibatch(part, advantages[rows]).items():
                    sums[name] += value
                norms.append(self.trained.step(config.gradient_clip))
        self.learning.publish()
        sums = self.engine.sums(sums)
        tokens = max(sums["tokens"], 1.0)
        return {
            "loss": sums["loss"] / len(norms),
            "clip_fraction": sums["clipped"] / tokens,
            "kl": sums["kl"] / tokens,
            "ratio": sums["ratio"] / tokens,
            "entropy": sums["entropy"] / tokens,
            "gradient_norm": sum(norms) / len(norms),
        }

    def _minibatch(self, part: Trajectories, advantages: np.ndarray) -> dict[str, float]:
        """Adds the gradient of this process's share of a minibatch; returns sums over the share's valid tokens."""
        sums: dict[str, float] = defaultdict(float)
        weights = self._weights(part)
        for share in shares(part.frames, self.config.frames_a_forward, self.engine.rank, self.engine.ranks):
            piece = frame_piece(part, advantages, weights, share, self.learning.device)
            with self.trained.one_pass(last=share.last):
                for name, value in self._accumulate(piece).items():
                    sums[name] += value
        return sums

    def _weights(self, part: Trajectories) -> np.ndarray:
        codec = self.policy.codec
        mask = token_mask(
            part.trajectory, part.chunk, part.steps,
            chunk_steps=codec.chunk_steps, knots=codec.knots, action_dim=codec.dim,
        )  # fmt: skip
        return token_weights(mask, part.trajectory, len(part), self.config.aggregation)

    def _accumulate(self, piece: dict[str, Any]) -> dict[str, float]:
        """Adds the gradient of one piece of a minibatch; returns sums over its valid tokens."""
        config = self.config
        logits = self.trained.module(piece["inputs"], piece["tokens"])
        new, entropy = log_probs_and_entropy(logits, piece["tokens"], config.temperature)
        weights: Tensor = piece["weights"]
        surrogate = clipped_surrogate(
            new, piece["log_probs"], piece["advantages"], weights,
            clip_low=config.clip_low, clip_high=config.clip_high, ratio_of=config.ratio_of,
        )  # fmt: skip
        loss = surrogate.loss
        if config.entropy_coefficient:
            loss = loss - config.entropy_coefficient * (weights * entropy).sum()
        if self.reference is not None:
            with torch.no_grad():
                reference = self.reference.token_logits(piece["inputs"], piece["tokens"])
                before = log_probs(reference, piece["tokens"], config.temperature)
            loss = loss + config.kl_coefficient * (weights * k3(new, before)).sum()
        self.trained.backward(loss)
        return {
            "loss": float(loss.detach()),
            "clipped": surrogate.clipped,
            "kl": surrogate.kl,
            "ratio": surrogate.ratio,
            "tokens": surrogate.tokens,
            "entropy": float(entropy.detach()[weights > 0].sum()),
        }

    def state(self) -> dict[str, Any]:
        reference = self.reference.model.state_dict() if self.reference is not None else None
        return self.learning.state() | {"reference": reference}

    def load_state(self, state: dict[str, Any]) -> None:
        self.learning.load_state(state)
        # Only the first of several processes has read it; in the others the policy to begin with is the same.
        if self.reference is not None and state["reference"] is not None:
            self.reference.model.load_state_dict(state["reference"])


def minibatches(trajectories: int, count: int, key: tuple[int, ...]) -> list[np.ndarray]:
    """Returns a random partition of the trajectories' indices into `count` parts, or as many as there are."""
    order = np.random.default_rng(list(key)).permutation(trajectories)
    return np.array_split(order, min(count, trajectories))


def frame_piece(
    part: Trajectories, advantages: np.ndarray, weights: np.ndarray, share: Share, device: torch.device | str
) -> dict[str, Any]:
    """Returns tensors of the share's frames on the device; advantages: (F,); weights: (F, K, A)."""
    own = {
        "tokens": part.tokens,
        "log_probs": part.log_probs,
        "advantages": advantages.astype(np.float32),
        "weights": weights if share.counts else np.zeros_like(weights),
    }
    inputs = to_tensors({name: array[share.rows] for name, array in part.inputs.items()}, device)
    return {"inputs": inputs, **to_tensors({name: array[share.rows] for name, array in own.items()}, device)}
