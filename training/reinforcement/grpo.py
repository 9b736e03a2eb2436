"""GRPO on action tokens with a binary outcome, after SimpleVLA-RL (Li et al. 2025, arXiv 2509.09674).

One step: sample groups of trajectories from the same scenario, keep the groups that both failed and succeeded,
give every valid token of a trajectory its group-relative advantage, and make a few clipped optimiser steps.

Where it departs from the paper's code:
- worlds that finish leave the batch, and pictures exist only where the policy looks;
- the old log-probabilities are the rollout's own: no second pass over the frames, none for logging either;
- surplus groups of dynamic sampling wait for the next batch, and a batch that ends short is used;
- a trajectory counts by whole knots of the action codec, which may cover several control steps;
- the reward is 1, not 5: the group normalisation cancels the factor.
Defaults are the paper's for LIBERO; a small policy on two cores needs other ones (launch/training). What goes beyond
the paper is off by default: progress_weight, advantage_scale, ratio_of, sampling.curriculum, asynchronous.
"""

import math
from typing import Any

from training.engine.engine import Engine
from training.policies.trained_policy import TrainedPolicy
from training.reinforcement.advantages import AdvantageScale, group_advantages
from training.reinforcement.collector import Collector
from training.reinforcement.dynamic_sampling import Batch, DynamicSampling
from training.reinforcement.policy_update import PolicyUpdate, SurrogateConfig
from training.reinforcement.progress_reward import progress_rewards
from training.reinforcement.rollout import PartTimes
from training.reinforcement.trajectory import Trajectories


class GRPOConfig(SurrogateConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of GRPO; the defaults are the paper's."""

    groups: int = 64
    """Scenarios a batch."""
    group_size: int = 8
    """Trajectories a scenario."""
    advantage_scale: AdvantageScale = "std"
    """std: a group's rewards are divided by their spread; none: they are not (Dr.GRPO)."""
    progress_weight: float = 0.0
    """What a failure earns at most, for how near it came to the batch's successes (SRPO); 0: nothing. With
    sampling.success_low = 0 groups that failed as a whole count too."""
    asynchronous: bool = False
    """Draw the next batch while this one is learned from, with the policy from before: one update stale."""
    sampling: DynamicSampling = DynamicSampling()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_size < 2:
            raise ValueError(f"group_size must be at least 2, got {self.group_size}")
        if not 0 <= self.progress_weight < 1:
            raise ValueError(f"progress_weight must be in [0, 1), so that success ranks first: {self.progress_weight}")


class GRPOLearner:
    """Holds policy, optimiser and collector; `update` makes one step; `state` is all that a resume needs."""

    def __init__(
        self, policy: TrainedPolicy, collector: Collector, config: GRPOConfig, engine: Engine | None = None
    ) -> None:
        """engine: plain torch by default."""
        self.policy = policy
        self.config = config
        self.step = 0
        self.collector = collector
        self.actor = PolicyUpdate(policy, config, engine)

    @property
    def finished(self) -> bool:
        return budget_spent(self.config, self.step, self.collector)

    def update(self) -> dict[str, float]:
        """Samples a batch and learns from it; returns the step's scalars."""
        times = PartTimes()
        batch = self.collector.collect(self.step, times)
        scalars = batch_scalars(batch) | {"control_steps": float(self.collector.control_steps)}
        if batch.trajectories is not None:
            with times.part("update"):
                scalars |= self._learn(batch.trajectories)
        self.step += 1
        return scalars | {f"seconds/{name}": seconds for name, seconds in times.seconds.items()}

    def _learn(self, batch: Trajectories) -> dict[str, float]:
        config = self.config
        rewards = progress_rewards(batch, config.progress_weight)
        advantages = group_advantages(rewards, config.group_size, config.advantage_scale)
        scalars = {"staleness": float(self.step - batch.policy_step.min())}
        if config.progress_weight and not batch.success.all():
            scalars["progress"] = float(rewards[~batch.success].mean() / config.progress_weight)
        return scalars | self.actor.learn(batch, advantages[batch.trajectory], self.step)

    def close(self) -> None:
        self.collector.close()

    def state(self) -> dict[str, Any]:
        return self.actor.state() | {"collector": self.collector.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes what `state` gave, with the `step` it was saved at."""
        self.step = int(state["step"])
        self.actor.load_state(state)
        self.collector.load_state(state["collector"], self.step)


def budget_spent(config: SurrogateConfig, step: int, collector: Collector) -> bool:
    """Returns whether a run has made its steps, or simulated its control steps where it has such a budget."""
    spent = bool(config.control_steps) and collector.control_steps >= config.control_steps
    return spent or step >= config.steps


def batch_scalars(batch: Batch) -> dict[str, float]:
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
