"""Success rates with their 95 % Wilson interval, and pass@k.

pass@k is the share of scenarios in which at least one of k sampled trajectories succeeds. Where it is 0 a binary
reward is always 0 and reinforcement cannot begin (SimpleVLA-RL, Li et al. 2025: 0 % stays 0 %), so it is measured
before time is spent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from rehearsal.simulation import Scenario, VectorSimulator
from training.policies.policy import Decoding, Policy
from training.policies.trained_policy import TrainedPolicy
from training.reinforcement.rollout import run_greedy, sample_trajectories
from training.reinforcement.trajectory import Trajectories

EVALUATION = 5
"""Purpose of random numbers, so that evaluation never shares a seed with training."""


@dataclass(frozen=True, kw_only=True)
class SuccessRate:
    """successes of n; low and high: 95 % Wilson interval, in [0, 1]; steps: mean control steps of a success."""

    successes: int
    n: int
    low: float
    high: float
    steps: float

    @property
    def rate(self) -> float:
        return self.successes / self.n

    def figures(self, name: str) -> dict[str, float]:
        """Returns the figures of a result file."""
        return {name: self.rate, f"{name}.n": self.n, f"{name}.low": self.low, f"{name}.high": self.high}

    def __str__(self) -> str:
        interval = f"[{100 * self.low:.1f}, {100 * self.high:.1f}]"
        return f"{self.successes}/{self.n} = {100 * self.rate:.1f} % {interval}"


def success_rate(success: np.ndarray, steps: np.ndarray) -> SuccessRate:
    """success: bool (N,), N at least 1. steps: int (N,)."""
    count, n = int(success.sum()), len(success)
    interval = binomtest(count, n).proportion_ci(method="wilson")
    return SuccessRate(
        successes=count,
        n=n,
        low=float(interval.low),
        high=float(interval.high),
        steps=float(steps[success].mean()) if count else float("nan"),
    )


def evaluate_greedy(
    simulator: VectorSimulator, policy: Policy, scenarios: Sequence[Scenario], decoding: Decoding = "argmax"
) -> SuccessRate:
    """Returns the success of the policy that would be served."""
    found = run_greedy(simulator, policy, scenarios, decoding=decoding)
    return success_rate(found.success, found.steps)


@dataclass(frozen=True, kw_only=True)
class PassAtK:
    """solved: scenarios with at least one success in k samples, as a rate; sampled: all samples, as a rate."""

    k: int
    solved: SuccessRate
    sampled: SuccessRate

    @property
    def warning(self) -> str | None:
        """Says why reinforcement would be a waste, or None."""
        if self.solved.successes:
            return None
        return (
            f"pass@{self.k} is 0 on {self.solved.n} scenarios: no reward will ever come and GRPO cannot improve this "
            "policy; give SFT more demonstrations or steps, or an easier cell, first"
        )


def pass_at_k(
    simulator: VectorSimulator,
    policy: TrainedPolicy,
    scenarios: Sequence[Scenario],
    *,
    k: int = 8,
    temperature: float = 1.6,
    seed: int = 0,
) -> PassAtK:
    """Samples k trajectories a scenario at the rollout temperature."""
    repeated = [scenario for scenario in scenarios for _ in range(k)]
    drawn = sample_trajectories(
        simulator, policy, repeated, temperature=temperature, random_key=(seed, EVALUATION), keep_inputs=False
    )
    return judge_samples(drawn, k)


def judge_samples(drawn: Trajectories, k: int) -> PassAtK:
    """drawn: k trajectories of each scenario, side by side."""
    solved = np.asarray(drawn.success.reshape(-1, k).any(axis=1))
    quickest = np.where(drawn.success, drawn.steps, np.iinfo(np.int64).max).reshape(-1, k).min(axis=1)
    return PassAtK(k=k, solved=success_rate(solved, quickest), sampled=success_rate(drawn.success, drawn.steps))
