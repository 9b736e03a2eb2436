"""Options that are off by default: progress rewards, Dr.GRPO, GSPO, the curriculum, asynchronous batches."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from rehearsal.simulation import scenarios
from training.checkpoint import load_checkpoint, save_checkpoint
from training.policies.trained_policy import TrainedPolicy
from training.reinforcement.advantages import group_advantages
from training.reinforcement.curriculum import Curriculum
from training.reinforcement.dynamic_sampling import DynamicSampling
from training.reinforcement.grpo import GRPOConfig, GRPOLearner
from training.reinforcement.losses import clipped_surrogate, token_weights
from training.reinforcement.progress_reward import progress_rewards
from training.reinforcement.reinforcement_run import Batches, make_collector
from training.reinforcement.rollouts import LocalRollouts
from training.reinforcement.trajectory import Trajectories

Maker = Callable[..., TrainedPolicy]
TRAINING = scenarios("toy_reach", "train", 1000)
GRPO = GRPOConfig(groups=4, group_size=4, learning_rate=1e-3, minibatches=2, sampling=DynamicSampling(success_high=1.0))


def learner_of(policy: TrainedPolicy, simulator: Any, config: GRPOConfig) -> GRPOLearner:
    batches = Batches(
        groups=config.groups, group_size=config.group_size, sampling=config.sampling, asynchronous=config.asynchronous
    )
    return GRPOLearner(policy, make_collector(policy, LocalRollouts(simulator), TRAINING, config, batches), config)


def walks(ends: list[float], success: list[bool], seed: list[int]) -> Trajectories:
    """Trajectories of two decisions: the state goes from 0 to `ends`; the picture stays black."""
    n = len(ends)
    state = np.array([value for end in ends for value in (0.0, end)], np.float32)[:, None]
    return Trajectories(
        inputs={"images": np.zeros((2 * n, 1, 16, 16, 3), np.uint8), "state": state},
        tokens=np.zeros((2 * n, 1, 1), np.int64), log_probs=np.zeros((2 * n, 1, 1), np.float32),
        trajectory=np.repeat(np.arange(n), 2), chunk=np.tile([0, 1], n), seed=np.array(seed),
        success=np.array(success), steps=np.full(n, 8), policy_step=np.zeros(n, np.int64),
    )  # fmt: skip


def test_a_failure_earns_the_share_of_the_way_that_it_came() -> None:
    """The success ended at 4: ends at 3, 4 and -1 are three quarters, all and none of the way."""
    batch = walks([4, 3, 4, -1], [True, False, False, False], [7, 7, 7, 7])
    assert progress_rewards(batch, 0.5) == pytest.approx([1, 0.375, 0.5, 0], abs=1e-6)
    assert progress_rewards(batch, 0.0).tolist() == [1, 0, 0, 0]


def test_progress_is_measured_against_the_same_scenario_where_it_was_solved() -> None:
    """Scenario 8 was never solved: the nearest success of the batch counts. Scenario 7 has its own."""
    batch = walks([4, 2, 8, 2], [True, False, True, False], [7, 7, 9, 8])
    assert progress_rewards(batch, 0.8) == pytest.approx([1, 0.4, 1, 0.4], abs=1e-6)
    own = walks([4, 8, 8], [True, True, False], [7, 9, 7])
    assert progress_rewards(own, 0.8)[2] == pytest.approx(0, abs=1e-6), "it overshot its own scenario's success"


def test_without_a_success_there_is_no_progress() -> None:
    assert progress_rewards(walks([4, 3], [False, False], [1, 1]), 0.5).tolist() == [0, 0]


def test_progress_gives_failed_groups_a_gradient(toy: Any, toy_policy: Maker) -> None:
    config = msgspec.structs.replace(
        GRPO, progress_weight=0.5, sampling=DynamicSampling(success_low=0.0, success_high=1.0)
    )
    scalars = learner_of(toy_policy(), toy(tolerance=0.2), config).update()
    assert scalars["groups_kept"] == scalars["groups_drawn"] and scalars["groups_all_failed"] > 0
    assert 0 < scalars["progress"] < 1 and scalars["gradient_norm"] > 0


@pytest.mark.parametrize("weight", [-0.1, 1.0])
def test_a_failure_may_never_rank_as_a_success(weight: float) -> None:
    with pytest.raises(ValueError, match="progress_weight must be in"):
        GRPOConfig(progress_weight=weight)


def test_dr_grpo_divides_by_neither_spread_nor_length() -> None:
    rewards = np.array([1.0, 0, 0, 0])
    assert group_advantages(rewards, 4, "none") == pytest.approx([0.75, -0.25, -0.25, -0.25])
    mask = np.array([[[True, True], [False, False]], [[True, True], [True, True]]])
    weights = token_weights(mask, np.array([0, 1]), 2, "constant")
    assert weights[mask] == pytest.approx(np.full(6, 1 / 8))


def test_gspo_takes_one_ratio_a_decision() -> None:
    """Log ratios 0.4, 0 and a masked one have the mean 0.2; beyond 1.1 it is clipped for all of the decision."""
    new = torch.tensor([[[0.4, 0.0, 9.0]]], dtype=torch.float64, requires_grad=True)
    old, weights = torch.zeros_like(new), torch.tensor([[[0.5, 0.5, 0.0]]], dtype=torch.float64)
    advantage = torch.tensor([2.0], dtype=torch.float64)

    def loss(clip: float) -> Any:
        return clipped_surrogate(new, old, advantage, weights, clip_low=0.1, clip_high=clip, ratio_of="chunk")

    free, held = loss(0.5), loss(0.1)
    assert float(free.loss.detach()) == pytest.approx(-2 * math.exp(0.2))
    assert (free.clipped, held.clipped) == (0, 2)
    assert float(held.loss.detach()) == pytest.approx(-2 * 1.1)
    (gradient,) = torch.autograd.grad(free.loss, new)
    assert gradient.flatten().tolist() == pytest.approx([-math.exp(0.2), -math.exp(0.2), 0])


def test_the_curriculum_prefers_half_solved_scenarios_and_gives_none_up() -> None:
    """Of 30 scenarios a third is always solved, a third half of the time, a third never."""
    order = Curriculum(30, seed=0)
    truth = np.repeat([1.0, 0.5, 0.0], 10)
    counts = np.zeros(30)
    for _ in range(300):
        places = order.take(6)
        assert len(set(places.tolist())) == 6
        counts[places] += 1
        order.record(places, truth[places])
    always, half, never = counts.reshape(3, 10).sum(axis=1)
    assert half > 1.5 * always and half > 1.5 * never
    assert counts.min() > 10
    assert order.success[10:20] == pytest.approx(np.full(10, 0.5))


def test_a_resumed_curriculum_goes_on_as_it_would_have() -> None:
    first, second = Curriculum(8, seed=3), Curriculum(8, seed=3)
    first.record(first.take(4), np.array([0.0, 1.0, 0.5, 0.5]))
    second.load_state(first.state())
    assert np.array_equal(first.take(5), second.take(5))
    assert sorted(np.bincount(first.take(17)).tolist()) == [2] * 7 + [3], "more than there are: all, and one again"


def test_asynchronous_batches_are_one_update_stale_and_say_so(toy: Any, toy_policy: Maker) -> None:
    config = msgspec.structs.replace(GRPO, asynchronous=True, sampling=DynamicSampling(enabled=False))
    learner = learner_of(toy_policy(), toy(tolerance=0.3), config)
    scalars = [learner.update() for _ in range(3)]
    learner.close()
    assert [each["staleness"] for each in scalars] == [0, 1, 1]
    # The second batch came from before the first update: its first minibatch has moved away from the policy.
    assert scalars[1]["kl"] > scalars[0]["kl"] > 0


def test_an_asynchronous_run_resumes_with_the_batch_that_was_under_way(
    toy: Any, toy_policy: Maker, tmp_path: Path
) -> None:
    config = msgspec.structs.replace(GRPO, asynchronous=True)

    def scalars(learner: GRPOLearner) -> dict[str, float]:
        return {name: value for name, value in learner.update().items() if not name.startswith("seconds/")}

    whole, first, second = (learner_of(toy_policy(seed), toy(tolerance=0.3), config) for seed in (0, 0, 9))
    expected = [scalars(whole) for _ in range(4)]
    found = [scalars(first) for _ in range(2)]
    save_checkpoint(tmp_path, first.step, first.state())
    state = load_checkpoint(tmp_path)
    assert state is not None
    second.load_state(state)
    found += [scalars(second) for _ in range(2)]
    for learner in (whole, first, second):
        learner.close()
    assert found == expected
