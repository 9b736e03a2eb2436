"""Generalised advantages by hand, the critic apart from the policy, the value-only warm-up, resume, and learning."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from rehearsal.simulation import scenarios
from training.checkpoint import load_checkpoint, save_checkpoint
from training.imitation.demonstration_set import DemonstrationSet
from training.imitation.sft import SFTConfig, SupervisedLearner
from training.policies.trained_policy import TrainedPolicy
from training.reinforcement.advantages import generalised_advantages
from training.reinforcement.critic import CriticConfig, CriticUpdate
from training.reinforcement.dynamic_sampling import DynamicSampling
from training.reinforcement.ppo import PPOConfig, PPOLearner
from training.reinforcement.reinforcement_run import Batches, make_collector
from training.reinforcement.rollout import run_greedy, sample_trajectories
from training.reinforcement.rollouts import LocalRollouts
from training.reinforcement.trajectory import Trajectories

Maker = Callable[..., TrainedPolicy]
TASK = "toy_reach"
TRAINING = scenarios(TASK, "train", 1000)
PPO = PPOConfig(
    steps=4, trajectories=16, learning_rate=1e-3, minibatches=2, epochs=2,
    critic=CriticConfig(learning_rate=1e-3, warmup_control_steps=300, epochs=2, minibatches=2),
)  # fmt: skip


def learner_of(policy: TrainedPolicy, simulator: Any, config: PPOConfig = PPO) -> PPOLearner:
    batches = Batches(groups=config.trajectories, group_size=1, sampling=config.sampling)
    return PPOLearner(policy, make_collector(policy, LocalRollouts(simulator), TRAINING, config, batches), config)


def two_trajectories() -> Trajectories:
    """A success of three decisions and a failure of two, their frames in the order of a rollout."""
    trajectory, chunk = np.array([0, 1, 0, 1, 0]), np.array([0, 0, 1, 1, 2])
    return Trajectories(
        inputs={}, tokens=np.zeros((5, 1, 1), np.int64), log_probs=np.zeros((5, 1, 1), np.float32),
        trajectory=trajectory, chunk=chunk, seed=np.array([0, 1]), success=np.array([True, False]),
        steps=np.array([12, 8]), policy_step=np.zeros(2, np.int64),
    )  # fmt: skip


def test_advantages_worked_out_by_hand() -> None:
    """Discount 0.5, trace 0.5, reward 8; values 1, 2, 3 of the success and 4, 6 of the failure.

    Success, backwards: 8 - 3 = 5; 0.5 x 3 - 2 + 0.25 x 5 = 0.75; 0.5 x 2 - 1 + 0.25 x 0.75 = 0.1875.
    Failure: 0 - 6 = -6; 0.5 x 6 - 4 - 0.25 x 6 = -2.5.
    """
    values = np.array([1.0, 4.0, 2.0, 6.0, 3.0])
    advantages, returns = generalised_advantages(two_trajectories(), values, reward=8, discount=0.5, trace=0.5)
    assert advantages == pytest.approx([0.1875, -2.5, 0.75, -6.0, 5.0])
    assert returns == pytest.approx(advantages + values)


def test_with_trace_one_returns_are_the_discounted_reward() -> None:
    _, returns = generalised_advantages(two_trajectories(), np.arange(5.0), reward=10, discount=0.9, trace=1)
    assert returns == pytest.approx([8.1, 0, 9, 0, 10])


def test_the_policy_rests_until_the_critic_has_seen_enough(toy: Any, toy_policy: Maker) -> None:
    learner = learner_of(toy_policy(), toy(tolerance=0.3))
    before = {name: tensor.clone() for name, tensor in learner.policy.model.state_dict().items()}
    first = learner.update()
    assert first["control_steps"] <= 300 and "loss" not in first and first["value_loss"] > 0
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.policy.model.state_dict().items())
    while (scalars := learner.update())["control_steps"] <= 300:
        assert "loss" not in scalars
    assert scalars["ratio"] == pytest.approx(1, abs=0.2)
    assert any(not torch.equal(before[name], tensor) for name, tensor in learner.policy.model.state_dict().items())


def test_the_critic_shares_nothing_with_the_policy_and_begins_at_zero(toy: Any, toy_policy: Maker) -> None:
    policy = toy_policy()
    batch = sample_trajectories(toy(), policy, TRAINING[:4], temperature=1.0, random_key=(0,))
    critic = CriticUpdate(policy, CriticConfig(), seed=0, frames_a_forward=5)
    assert critic.values(batch) == pytest.approx(np.zeros(batch.frames))
    shared = {weights.data_ptr() for weights in policy.model.parameters()}
    assert not shared & {weights.data_ptr() for weights in critic.trained.module.parameters()}


def test_the_critic_learns_what_the_returns_are(toy: Any, toy_policy: Maker) -> None:
    policy = toy_policy()
    batch = sample_trajectories(toy(), policy, TRAINING[:16], temperature=1.0, random_key=(0,))
    returns = batch.chunk.astype(np.float64)
    config = CriticConfig(learning_rate=3e-3, coefficient=0.5, epochs=30, minibatches=2, gradient_clip=10.0)
    found = CriticUpdate(policy, config, seed=0, frames_a_forward=16).learn(batch, returns, step=0)
    assert found["explained_variance"] > 0.5


def test_pieces_of_a_pass_change_nothing(toy: Any, toy_policy: Maker) -> None:
    policy = toy_policy()
    batch = sample_trajectories(toy(), policy, TRAINING[:8], temperature=1.0, random_key=(0,))
    returns, values = np.linspace(0, 1, batch.frames), []
    for frames in (10_000, 3):
        critic = CriticUpdate(policy, PPO.critic, seed=0, frames_a_forward=frames)
        critic.learn(batch, returns, step=0)
        values.append(critic.values(batch))
    assert values[0] == pytest.approx(values[1], abs=1e-4)


def test_ppo_two_steps_resume_two_steps_equals_four(toy: Any, toy_policy: Maker, tmp_path: Path) -> None:
    def scalars(learner: PPOLearner) -> dict[str, float]:
        return {name: value for name, value in learner.update().items() if not name.startswith("seconds/")}

    whole, first, second = (learner_of(toy_policy(seed), toy(tolerance=0.3)) for seed in (0, 0, 9))
    expected = [scalars(whole) for _ in range(4)]
    found = [scalars(first) for _ in range(2)]
    save_checkpoint(tmp_path, first.step, first.state())
    state = load_checkpoint(tmp_path)
    assert state is not None
    second.load_state(state)
    found += [scalars(second) for _ in range(2)]
    assert found == expected


def test_the_budget_of_control_steps_ends_a_run(toy: Any, toy_policy: Maker) -> None:
    learner = learner_of(toy_policy(), toy(tolerance=0.3), msgspec.structs.replace(PPO, steps=99, control_steps=400))
    spent = [0.0]
    while not learner.finished:
        spent.append(learner.update()["control_steps"])
    assert spent[-2] < 400 <= spent[-1]


def test_ppo_refuses_to_drop_trajectories() -> None:
    with pytest.raises(ValueError, match="PPO learns from every trajectory"):
        PPOConfig(sampling=DynamicSampling(enabled=True))


def test_ppo_learns_to_reach(toy: Any, toy_policy: Maker, toy_demonstrations: DemonstrationSet) -> None:
    policy = toy_policy()
    tutor = SupervisedLearner(policy, toy_demonstrations, SFTConfig(steps=80, target_std_bins=2.0))
    for _ in range(tutor.config.steps):
        tutor.update()
    judged = scenarios(TASK, "validation", 100)
    before = run_greedy(toy(max_worlds=100), policy, judged).rate
    config = PPOConfig(
        trajectories=128, learning_rate=5e-4, epochs=2,
        critic=CriticConfig(learning_rate=1e-3, warmup_control_steps=3000),
    )  # fmt: skip
    learner = learner_of(policy, toy(max_worlds=128), config)
    for _ in range(15):
        learner.update()
    assert before < 0.6
    assert run_greedy(toy(max_worlds=100), policy, judged).rate >= before + 0.25
