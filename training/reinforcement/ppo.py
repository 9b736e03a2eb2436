"""PPO on action tokens with a binary outcome, after FLaRe (Hu et al., ICRA 2025, arXiv 2409.16578).

One step: sample trajectories, each from another scenario; a critic of its own gives every decision its advantage
(GAE on chunks); the critic learns, and once it has seen enough, the policy makes clipped optimiser steps.

What FLaRe found to keep it stable is the default here: separate critic, value-only warm-up, small rate, clip 0.1, no
entropy bonus, advantages as they are, sparse reward of 10. Where it departs from it: whole episodes in place of
128-step pieces, so that nothing is bootstrapped; a decision is a chunk of tokens whose ratios are clipped one by one,
as in GRPO here, where FLaRe's is a single token; temperature, rollouts, evaluation and budget are those of GRPO.
"""

from typing import Any

from training.engine.engine import Engine
from training.policies.trained_policy import TrainedPolicy
from training.reinforcement.advantages import generalised_advantages
from training.reinforcement.collector import Collector
from training.reinforcement.critic import CriticConfig, CriticUpdate
from training.reinforcement.dynamic_sampling import DynamicSampling
from training.reinforcement.grpo import batch_scalars, budget_spent
from training.reinforcement.losses import Aggregation
from training.reinforcement.policy_update import PolicyUpdate, SurrogateConfig
from training.reinforcement.rollout import PartTimes
from training.reinforcement.trajectory import Trajectories

EVERY_TRAJECTORY = DynamicSampling(enabled=False)


class PPOConfig(SurrogateConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of PPO; the defaults are FLaRe's."""

    trajectories: int = 512
    """Trajectories a batch, each from a scenario of its own."""
    temperature: float = 1.0
    clip_low: float = 0.1
    clip_high: float = 0.1
    learning_rate: float = 2e-5
    weight_decay: float = 0.0
    gradient_clip: float = 0.5
    epochs: int = 4
    aggregation: Aggregation = "token_mean"
    discount: float = 0.99
    """Of the return, a decision."""
    trace: float = 0.95
    """Lambda of the generalised advantages."""
    reward: float = 10.0
    """Of success; nothing else is rewarded."""
    critic: CriticConfig = CriticConfig()
    sampling: DynamicSampling = EVERY_TRAJECTORY

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sampling.enabled or self.sampling.curriculum:
            raise ValueError("PPO learns from every trajectory: sampling.enabled and .curriculum must be false")


class PPOLearner:
    """Holds policy, critic and collector; `update` makes one step; `state` is all that a resume needs."""

    def __init__(
        self, policy: TrainedPolicy, collector: Collector, config: PPOConfig, engine: Engine | None = None
    ) -> None:
        """engine: plain torch by default."""
        self.policy = policy
        self.config = config
        self.step = 0
        self.collector = collector
        # The critic first: it begins as a copy of the policy as it was read.
        self.critic = CriticUpdate(
            policy, config.critic, seed=config.seed, frames_a_forward=config.frames_a_forward, engine=engine
        )
        self.actor = PolicyUpdate(policy, config, engine)
        self._warmup_batches = 0

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
        advantages, returns = generalised_advantages(
            batch, self.critic.values(batch), reward=config.reward, discount=config.discount, trace=config.trace
        )
        scalars = self.critic.learn(batch, returns, self.step)
        if self.collector.control_steps <= config.critic.warmup_control_steps:
            self._warmup_batches = self.step + 1
            return scalars
        # The rate's own warm-up counts the batches that move the policy.
        return scalars | self.actor.learn(batch, advantages, self.step - self._warmup_batches)

    def close(self) -> None:
        self.collector.close()

    def state(self) -> dict[str, Any]:
        return self.actor.state() | {
            "critic": self.critic.state(),
            "collector": self.collector.state(),
            "warmup_batches": self._warmup_batches,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes what `state` gave, with the `step` it was saved at."""
        self.step = int(state["step"])
        self.actor.load_state(state)
        self.critic.load_state(state["critic"])
        self.collector.load_state(state["collector"], self.step)
        self._warmup_batches = state["warmup_batches"]
