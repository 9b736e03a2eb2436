"""What the learners of all recipes share: collect a batch, learn from it, keep the step and the budget."""

import math
from abc import ABC, abstractmethod
from typing import Any

from training.policies.trained_policy import TrainedPolicy
from training.reinforcement.collector import Collector
from training.reinforcement.dynamic_sampling import Batch
from training.reinforcement.policy_update import PolicyUpdate, SurrogateConfig
from training.reinforcement.rollout import PartTimes
from training.reinforcement.trajectory import Trajectories


class BatchLearner(ABC):
    """Holds policy, optimiser and collector; `update` makes one step; `state` is all that a resume needs."""

    def __init__(
        self, policy: TrainedPolicy, collector: Collector, config: SurrogateConfig, actor: PolicyUpdate
    ) -> None:
        self.policy = policy
        self.collector = collector
        self.actor = actor
        self.step = 0
        self._limits = config

    @abstractmethod
    def learn(self, batch: Trajectories) -> dict[str, float]:
        """Learns from one batch; returns the step's scalars."""

    @property
    def finished(self) -> bool:
        """Whether a run has made its steps, or simulated its control steps where it has such a budget."""
        budget = self._limits.control_steps
        return self.step >= self._limits.steps or (bool(budget) and self.collector.control_steps >= budget)

    def update(self) -> dict[str, float]:
        """Samples a batch and learns from it; returns the step's scalars."""
        times = PartTimes()
        batch = self.collector.collect(self.step, times)
        scalars = batch_scalars(batch) | {"control_steps": float(self.collector.control_steps)}
        if batch.trajectories is not None:
            with times.part("update"):
                scalars |= self.learn(batch.trajectories)
        self.step += 1
        return scalars | {f"seconds/{name}": seconds for name, seconds in times.seconds.items()}

    def close(self) -> None:
        self.collector.close()

    def state(self) -> dict[str, Any]:
        return self.actor.state() | {"collector": self.collector.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes what `state` gave, with the `step` it was saved at."""
        self.step = int(state["step"])
        self.actor.load_state(state)
        self.collector.load_state(state["collector"], self.step)


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
