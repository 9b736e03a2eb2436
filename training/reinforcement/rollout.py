"""Rollouts: a simulator's worlds and a policy, in lockstep by chunk, to trajectories.

A finished world leaves the batch: it is neither rendered, nor passed through the policy, nor moved. Random numbers
are drawn beforehand for each trajectory and chunk, so that a trajectory does not depend on its neighbours: the same
seed gives the same tokens for any `max_worlds` and for any cut of a draw over processes (up to the last bit of the
logits, which a batch's size may change).
"""

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from rehearsal.simulation import Scenario, VectorSimulator
from training.policies.policy import Decoding, Policy
from training.policies.trained_policy import TrainedPolicy
from training.reinforcement.trajectory import Trajectories, concatenate


@dataclass
class PartTimes:
    """Seconds by part of a rollout or a training step."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] += time.monotonic() - start


@dataclass(frozen=True, kw_only=True)
class Success:
    """Outcomes of scenarios, in their order. success: bool (N,). steps: int64 (N,)."""

    success: np.ndarray
    steps: np.ndarray

    @property
    def rate(self) -> float:
        return float(self.success.mean())


def sample_trajectories(
    simulator: VectorSimulator,
    policy: TrainedPolicy,
    scenarios: Sequence[Scenario],
    *,
    temperature: float,
    random_key: Sequence[int],
    policy_step: int = 0,
    keep_inputs: bool = True,
    times: PartTimes | None = None,
    first: int = 0,
) -> Trajectories:
    """Returns one sampled trajectory a scenario, in order; the same `random_key` gives the same tokens.

    keep_inputs: off, the trajectories hold no pictures: for evaluation. first: the place of the first scenario in a
    draw of which these are a part; a part gives what the whole draw would give in its place.
    """
    times = times or PartTimes()
    codec = policy.codec
    chunks = -(-simulator.horizon_steps // codec.chunk_steps)
    uniform = uniform_numbers(random_key, first, (len(scenarios), chunks, codec.knots, codec.dim))
    parts = []
    for start in range(0, len(scenarios), simulator.max_worlds):
        part = slice(start, start + simulator.max_worlds)
        drawn = _sample_round(simulator, policy, scenarios[part], temperature, uniform[part], keep_inputs, times)
        parts.append(drawn)
    whole = concatenate(parts)
    whole.policy_step[:] = policy_step
    return whole


def uniform_numbers(random_key: Sequence[int], first: int, shape: tuple[int, ...]) -> np.ndarray:
    """Returns rows `first` to `first + shape[0]` of the endless array of numbers in [0, 1) that the key stands for."""
    # PCG64 makes one 64-bit number a double and can jump ahead, so that no row before the first is drawn.
    bits = np.random.PCG64(list(random_key)).advance(first * math.prod(shape[1:]))
    return np.random.Generator(bits).random(shape)


def _sample_round(
    simulator: VectorSimulator,
    policy: TrainedPolicy,
    scenarios: Sequence[Scenario],
    temperature: float,
    uniform: np.ndarray,
    keep_inputs: bool,
    times: PartTimes,
) -> Trajectories:
    """uniform: (N, chunks, K, A), one number a token."""
    with times.part("reset"):
        simulator.reset(scenarios)
    frames: list[dict[str, np.ndarray]] = []
    records: list[tuple[np.ndarray, ...]] = []
    for chunk in range(uniform.shape[1]):
        worlds = np.flatnonzero(~simulator.outcomes().finished)
        if not len(worlds):
            break
        with times.part("rendering"):
            seen = simulator.observe(worlds.tolist())
        with times.part("policy"):
            inputs = policy.transform(seen)
            tokens, log_probs = policy.sample(inputs, temperature, uniform[worlds, chunk])
            actions = policy.actions(tokens, seen.state)
        with times.part("physics"):
            simulator.step(worlds.tolist(), actions)
        frames.append(inputs if keep_inputs else {})
        records.append((tokens, log_probs, worlds, np.full(len(worlds), chunk)))
    tokens, log_probs_all, trajectory, chunk_number = (np.concatenate(column) for column in zip(*records, strict=True))
    outcomes = simulator.outcomes()
    return Trajectories(
        inputs={name: np.concatenate([frame[name] for frame in frames]) for name in frames[0]},
        tokens=tokens,
        log_probs=log_probs_all,
        trajectory=trajectory,
        chunk=chunk_number,
        seed=np.array([scenario.seed for scenario in scenarios]),
        success=outcomes.success.copy(),
        steps=outcomes.steps.astype(np.int64),
        policy_step=np.zeros(len(scenarios), dtype=np.int64),
    )


def run_greedy(
    simulator: VectorSimulator,
    policy: Policy,
    scenarios: Sequence[Scenario],
    *,
    decoding: Decoding = "argmax",
    times: PartTimes | None = None,
) -> Success:
    """Returns how the policy that would be served does on each scenario, in order."""
    times = times or PartTimes()
    chunks = -(-simulator.horizon_steps // policy.chunk_steps)
    success, steps = [], []
    for start in range(0, len(scenarios), simulator.max_worlds):
        policy.reset()
        with times.part("reset"):
            simulator.reset(scenarios[start : start + simulator.max_worlds])
        for _ in range(chunks):
            worlds = np.flatnonzero(~simulator.outcomes().finished)
            if not len(worlds):
                break
            with times.part("rendering"):
                seen = simulator.observe(worlds.tolist())
            with times.part("policy"):
                actions = policy.act(seen, decoding)
            with times.part("physics"):
                simulator.step(worlds.tolist(), actions)
        outcomes = simulator.outcomes()
        success.append(outcomes.success.copy())
        steps.append(outcomes.steps.astype(np.int64))
    return Success(success=np.concatenate(success), steps=np.concatenate(steps))
