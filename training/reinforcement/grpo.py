"""GRPO on action tokens with a binary outcome, after SimpleVLA-RL (Li et al. 2025, arXiv 2509.09674).

One step: sample groups of trajectories from the same scenario, keep the groups that both failed and succeeded,
give every valid token of a trajectory its group-relative advantage, and make a few clipped optimiser steps.

Where it departs from the paper's code:
- worlds that finish leave the batch, and pictures exist only where the policy looks;
- the old log-probabilities are the rollout's own: no second pass over the frames, none for logging either;
- surplus groups of dynamic sampling wait for the next batch, and a batch that ends short is used;
- a trajectory counts by whole knots of the action codec, which may cover several control steps;
- the reward is 1, not 5: the group normalisation cancels the factor.
Defaults are the paper's for LIBERO; a small policy on two cores needs other ones (launch/training).
"""

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from rehearsal.simulation import Scenario, VectorSimulator
from training.policies.token_distribution import log_probs, log_probs_and_entropy
from training.policies.trained_policy import TrainedPolicy, to_tensors
from training.reinforcement.advantages import group_advantages
from training.reinforcement.dynamic_sampling import Batch, DynamicSampling, GroupSampler
from training.reinforcement.losses import Aggregation, clipped_surrogate, k3, token_mask, token_weights
from training.reinforcement.rollout import PartTimes, sample_trajectories
from training.reinforcement.trajectory import Trajectories

# Purposes of random numbers, so that no two ever share a seed.
ROLLOUT, SHUFFLE = 3, 4


class GRPOConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of GRPO; the defaults are the paper's."""

    seed: int = 0
    """Seed of sampling and of minibatches."""
    steps: int = 100
    """Batches to learn from."""
    groups: int = 64
    """Scenarios a batch."""
    group_size: int = 8
    """Trajectories a scenario."""
    temperature: float = 1.6
    """Divides the logits, in sampling and in scoring alike."""
    clip_low: float = 0.2
    clip_high: float = 0.28
    """The ratio of a token is clipped to 1 - clip_low and 1 + clip_high."""
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
    """trajectory_mean: every trajectory weighs the same; token_mean: every token does."""
    kl_coefficient: float = 0.0
    """Weight of the KL divergence to the policy before reinforcement; 0: no reference model is kept."""
    entropy_coefficient: float = 0.0
    """Weight of the entropy bonus."""
    sampling: DynamicSampling = DynamicSampling()
    frames_a_forward: int = 512
    """Frames in one pass through the policy; bounds memory and changes nothing else."""

    def __post_init__(self) -> None:
        if self.group_size < 2:
            raise ValueError(f"group_size must be at least 2, got {self.group_size}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        if not 1 <= self.minibatches <= self.groups * self.group_size:
            raise ValueError(f"minibatches must be 1 to groups x group_size, got {self.minibatches}")


class GRPOLearner:
    """Holds policy, optimiser and sampler; `update` makes one step; `state` is all that a resume needs."""

    def __init__(
        self,
        policy: TrainedPolicy,
        simulator: VectorSimulator,
        config: GRPOConfig,
        scenarios: Sequence[Scenario],
    ) -> None:
        """scenarios: to train on, taken in turn."""
        self.policy = policy
        self.simulator = simulator
        self.config = config
        self.step = 0
        self.optimiser = torch.optim.AdamW(
            policy.model.parameters(), lr=config.learning_rate, betas=(0.9, 0.999), weight_decay=config.weight_decay
        )
        self.sampler = GroupSampler(
            config.sampling,
            scenarios,
            groups=config.groups,
            group_size=config.group_size,
            max_worlds=simulator.max_worlds,
        )
        self.reference = copy.deepcopy(policy.model).requires_grad_(False) if config.kl_coefficient else None

    def update(self) -> dict[str, float]:
        """Samples a batch and learns from it; returns the step's scalars."""
        times = PartTimes()
        batch = self.sampler.fill(lambda scenarios, number: self._draw(scenarios, number, times))
        scalars = batch_scalars(batch, self.config)
        if batch.trajectories is not None:
            with times.part("update"):
                scalars |= self._learn(batch.trajectories)
        self.step += 1
        return scalars | {f"seconds/{name}": seconds for name, seconds in times.seconds.items()}

    def _draw(self, scenarios: list[Scenario], number: int, times: PartTimes) -> Trajectories:
        return sample_trajectories(
            self.simulator,
            self.policy,
            scenarios,
            temperature=self.config.temperature,
            random_key=(self.config.seed, ROLLOUT, self.step, number),
            policy_step=self.step,
            times=times,
        )

    def _learn(self, batch: Trajectories) -> dict[str, float]:
        """Makes epochs x minibatches optimiser steps; returns means over all of the valid tokens."""
        config, codec = self.config, self.policy.codec
        advantages = group_advantages(batch.rewards, config.group_size)
        sums: dict[str, float] = dict.fromkeys(("clipped", "kl", "ratio", "entropy", "tokens", "loss", "norm"), 0.0)
        optimiser_steps = 0
        self.policy.model.train()
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * min(1.0, (self.step + 1) / max(config.warmup_steps, 1))
        for epoch in range(config.epochs):
            order = np.random.default_rng([config.seed, SHUFFLE, self.step, epoch]).permutation(len(batch))
            for chosen in np.array_split(order, min(config.minibatches, len(batch))):
                part = batch.select(chosen)
                mask = token_mask(
                    part.trajectory, part.chunk, part.steps,
                    chunk_steps=codec.chunk_steps, knots=codec.knots, action_dim=codec.dim,
                )  # fmt: skip
                weights = token_weights(mask, part.trajectory, len(part), config.aggregation)
                self.optimiser.zero_grad(set_to_none=True)
                for piece in frame_pieces(part, advantages[chosen], weights, config.frames_a_forward):
                    for name, value in self._accumulate(piece).items():
                        sums[name] += value
                norm = torch.nn.utils.clip_grad_norm_(self.policy.model.parameters(), config.gradient_clip)
                self.optimiser.step()
                sums["norm"] += float(norm)
                optimiser_steps += 1
        self.policy.model.eval()
        tokens = max(sums["tokens"], 1.0)
        return {
            "loss": sums["loss"] / optimiser_steps,
            "clip_fraction": sums["clipped"] / tokens,
            "kl": sums["kl"] / tokens,
            "ratio": sums["ratio"] / tokens,
            "entropy": sums["entropy"] / tokens,
            "gradient_norm": sums["norm"] / optimiser_steps,
        }

    def _accumulate(self, piece: dict[str, Any]) -> dict[str, float]:
        """Adds the gradient of one piece of a minibatch; returns sums over its valid tokens."""
        config = self.config
        logits = self.policy.model(**piece["inputs"])
        new, entropy = log_probs_and_entropy(logits, piece["tokens"], config.temperature)
        weights: Tensor = piece["weights"]
        surrogate = clipped_surrogate(
            new, piece["log_probs"], piece["advantages"], weights,
            clip_low=config.clip_low, clip_high=config.clip_high,
        )  # fmt: skip
        loss = surrogate.loss
        if config.entropy_coefficient:
            loss = loss - config.entropy_coefficient * (weights * entropy).sum()
        if self.reference is not None:
            with torch.no_grad():
                before = log_probs(self.reference(**piece["inputs"]), piece["tokens"], config.temperature)
            loss = loss + config.kl_coefficient * (weights * k3(new, before)).sum()
        loss.backward()
        return {
            "loss": float(loss.detach()),
            "clipped": surrogate.clipped,
            "kl": surrogate.kl,
            "ratio": surrogate.ratio,
            "tokens": surrogate.tokens,
            "entropy": float(entropy.detach()[weights > 0].sum()),
        }

    def state(self) -> dict[str, Any]:
        reference = self.reference.state_dict() if self.reference is not None else None
        return {
            "model": self.policy.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "sampler": self.sampler.state(),
            "reference": reference,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes what `state` gave, with the `step` it was saved at."""
        self.step = int(state["step"])
        self.policy.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.sampler.load_state(state["sampler"])
        if self.reference is not None:
            self.reference.load_state_dict(state["reference"])


def frame_pieces(
    part: Trajectories, advantages: np.ndarray, weights: np.ndarray, frames: int
) -> Iterator[dict[str, Any]]:
    """Yields tensors of at most `frames` frames; advantages: (N,), one a trajectory; weights: (F, K, A)."""
    of_frame = advantages[part.trajectory].astype(np.float32)
    for start in range(0, part.frames, frames):
        rows = slice(start, start + frames)
        own = {"tokens": part.tokens, "log_probs": part.log_probs, "advantages": of_frame, "weights": weights}
        inputs = to_tensors({name: array[rows] for name, array in part.inputs.items()})
        yield {"inputs": inputs, **to_tensors({name: array[rows] for name, array in own.items()})}


def batch_scalars(batch: Batch, config: GRPOConfig) -> dict[str, float]:
    """Returns what the draws of one batch say: success is that of every trajectory drawn, kept or not."""
    scalars: dict[str, float] = {
        "groups_drawn": batch.drawn_groups,
        "groups_kept": batch.kept_groups,
        "groups_all_failed": batch.all_failed,
        "groups_all_succeeded": batch.all_succeeded,
        "frames_drawn": batch.drawn_frames,
        "trajectories": 0 if batch.trajectories is None else len(batch.trajectories),
    }
    # A batch filled by the surplus alone has drawn nothing and so has no success of its own.
    if not math.isnan(batch.success):
        scalars |= {"sampled_success": batch.success}
    return {name: float(value) for name, value in scalars.items()}
