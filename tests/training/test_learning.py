"""The two learners: exact resume, and that they learn."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rehearsal.simulation import scenarios
from training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from training.imitation.augmentation import change_colour, shift
from training.imitation.demonstration_set import DemonstrationSet
from training.imitation.sft import SFTConfig, SupervisedLearner, learning_rate, rows_of_step, token_loss
from training.policies.trained_policy import TrainedPolicy
from training.reinforcement.dynamic_sampling import DynamicSampling
from training.reinforcement.grpo import GRPOConfig, GRPOLearner
from training.reinforcement.reinforcement_run import Batches, make_collector
from training.reinforcement.rollout import run_greedy
from training.reinforcement.rollouts import LocalRollouts

TASK = "toy_reach"
Maker = Callable[..., TrainedPolicy]
SFT = SFTConfig(steps=4, batch_frames=50, warmup_steps=2, brightness=0.2, colour=0.1, shift_px=2, target_std_bins=2.0)
GRPO = GRPOConfig(
    steps=4, groups=6, group_size=4, learning_rate=1e-3, kl_coefficient=0.01, entropy_coefficient=0.01,
    sampling=DynamicSampling(success_high=1.0), epochs=2, frames_a_forward=30,
)  # fmt: skip

TRAINING = scenarios("toy_reach", "train", 1000)


def grpo(policy: TrainedPolicy, simulator: Any, config: GRPOConfig) -> GRPOLearner:
    batches = Batches(
        groups=config.groups,
        group_size=config.group_size,
        sampling=config.sampling,
        asynchronous=config.asynchronous,
    )
    return GRPOLearner(policy, make_collector(policy, LocalRollouts(simulator), TRAINING, config, batches), config)


def weights(policy: TrainedPolicy) -> dict[str, torch.Tensor]:
    return policy.model.state_dict()


def assert_same_policy(first: TrainedPolicy, second: TrainedPolicy) -> None:
    for name, tensor in weights(first).items():
        assert torch.equal(tensor, weights(second)[name]), name


def test_sft_two_steps_resume_two_steps_equals_four(
    toy_policy: Maker, toy_demonstrations: DemonstrationSet, tmp_path: Path
) -> None:
    whole = SupervisedLearner(toy_policy(), toy_demonstrations, SFT)
    expected = [whole.update() for _ in range(4)]
    first = SupervisedLearner(toy_policy(), toy_demonstrations, SFT)
    found = [first.update() for _ in range(2)]
    save_checkpoint(tmp_path, first.step, first.state())
    second = SupervisedLearner(toy_policy(seed=9), toy_demonstrations, SFT)
    state = load_checkpoint(tmp_path)
    assert state is not None
    second.load_state(state)
    found += [second.update() for _ in range(2)]
    assert found == expected
    assert_same_policy(whole.policy, second.policy)


def test_grpo_two_steps_resume_two_steps_equals_four(toy: Any, toy_policy: Maker, tmp_path: Path) -> None:
    def learner(seed: int = 0) -> GRPOLearner:
        return grpo(toy_policy(seed), toy(tolerance=0.3), GRPO)

    def scalars(learner: GRPOLearner) -> dict[str, float]:
        return {name: value for name, value in learner.update().items() if not name.startswith("seconds/")}

    whole, first, second = learner(), learner(), learner(seed=9)
    expected = [scalars(whole) for _ in range(4)]
    found = [scalars(first) for _ in range(2)]
    save_checkpoint(tmp_path, first.step, first.state())
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["collector"]["sampler"]["surplus"] is not None, "the test should carry a surplus over the resume"
    second.load_state(state)
    found += [scalars(second) for _ in range(2)]
    assert found == expected
    assert_same_policy(whole.policy, second.policy)


def test_pieces_of_a_minibatch_add_up(toy: Any, toy_policy: Maker) -> None:
    """One pass of all frames and passes of 7 give the same step up to rounding."""
    policies = []
    for frames in (10_000, 7):
        config = msgspec.structs.replace(GRPO, frames_a_forward=frames, epochs=1, kl_coefficient=0.0)
        learner = grpo(toy_policy(), toy(tolerance=0.3), config)
        scalars = learner.update()
        policies.append((learner.policy, scalars["loss"], scalars["gradient_norm"]))
    assert policies[0][1:] == pytest.approx(policies[1][1:], rel=1e-3, abs=1e-6)


def test_grpo_step_reports_what_happened(toy: Any, toy_policy: Maker) -> None:
    scalars = grpo(toy_policy(), toy(tolerance=0.3), GRPO).update()
    assert scalars["trajectories"] == 24
    assert 0 < scalars["sampled_success"] < 1
    assert 0 <= scalars["clip_fraction"] < 1
    assert scalars["kl"] >= 0
    assert scalars["entropy"] < math.log(64)
    assert {f"seconds/{part}" for part in ("reset", "rendering", "policy", "physics", "update")} <= scalars.keys()


def test_first_minibatch_has_ratio_one(toy: Any, toy_policy: Maker) -> None:
    config = GRPOConfig(groups=4, group_size=4, minibatches=1, sampling=DynamicSampling(enabled=False))
    scalars = grpo(toy_policy(), toy(tolerance=0.3), config).update()
    assert scalars["ratio"] == pytest.approx(1, abs=1e-4)
    assert scalars["kl"] == pytest.approx(0, abs=1e-6)
    assert scalars["clip_fraction"] == 0


def test_grpo_warms_up_by_steps_and_a_resumed_run_knows_where_it_is(toy: Any, toy_policy: Maker) -> None:
    """Thirds of 0.003 over three steps, the same for every minibatch of a step; without warm-up the whole rate."""

    def rates(warmup_steps: int, first: int, count: int) -> list[float]:
        config = GRPOConfig(
            groups=4, group_size=4, minibatches=2, learning_rate=3e-3, warmup_steps=warmup_steps,
            sampling=DynamicSampling(enabled=False),
        )  # fmt: skip
        learner = grpo(toy_policy(), toy(tolerance=0.3), config)
        learner.load_state({**learner.state(), "step": first})
        seen: list[float] = []
        optimiser = learner.actor.optimiser
        optimiser.register_step_pre_hook(lambda optimiser, *_: seen.append(optimiser.param_groups[0]["lr"]))
        for _ in range(count):
            learner.update()
        return seen

    assert rates(3, 0, 5) == pytest.approx([1e-3, 1e-3, 2e-3, 2e-3, 3e-3, 3e-3, 3e-3, 3e-3, 3e-3, 3e-3])
    assert rates(3, 1, 2) == pytest.approx([2e-3, 2e-3, 3e-3, 3e-3])
    assert rates(0, 0, 1) == pytest.approx([3e-3, 3e-3])


def test_grpo_without_any_reward_leaves_the_policy_alone(toy: Any, toy_policy: Maker) -> None:
    learner = grpo(toy_policy(), toy(tolerance=1e-9), GRPO)
    before = {name: tensor.clone() for name, tensor in weights(learner.policy).items()}
    scalars = learner.update()
    assert scalars["sampled_success"] == 0 and scalars["trajectories"] == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(learner.policy).items())


def test_sft_then_grpo_learn_to_reach(toy: Any, toy_policy: Maker, toy_demonstrations: DemonstrationSet) -> None:
    """Thirty demonstrations give a policy that misses often; reinforcement alone then makes it reach."""
    policy = toy_policy()
    tutor = SupervisedLearner(policy, toy_demonstrations, SFTConfig(steps=80, target_std_bins=2.0))
    for _ in range(tutor.config.steps):
        tutor.update()
    judged = scenarios(TASK, "validation", 100)
    greedy_before = run_greedy(toy(max_worlds=100), policy, judged).rate
    config = GRPOConfig(groups=16, learning_rate=5e-4, temperature=1.0)
    learner = grpo(policy, toy(max_worlds=128), config)
    sampled = [learner.update()["sampled_success"] for _ in range(25)]
    greedy_after = run_greedy(toy(max_worlds=100), policy, judged).rate
    assert greedy_before < 0.6
    assert greedy_after >= greedy_before + 0.25
    assert np.mean(sampled[-5:]) >= np.mean(sampled[:5]) + 0.15


def test_learning_rate_warms_up_and_falls_to_its_fraction() -> None:
    config = SFTConfig(steps=101, learning_rate=1e-3, warmup_steps=10, final_rate_fraction=0.1)
    assert learning_rate(config, 0) == pytest.approx(1e-4)
    assert learning_rate(config, 50) == pytest.approx(1e-3 * (0.1 + 0.9 * 0.5))
    assert learning_rate(config, 100) == pytest.approx(1e-4)


def test_token_loss_with_and_without_smoothing() -> None:
    logits = torch.randn(2, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[[3]], [[0]]])
    plain = -(F.log_softmax(logits, -1)[0, 0, 0, 3] + F.log_softmax(logits, -1)[1, 0, 0, 0]) / 2
    assert token_loss(logits, tokens, 0.0).item() == pytest.approx(plain.item())
    assert token_loss(logits, tokens, 1e-3).item() == pytest.approx(plain.item(), rel=1e-5)
    uniform = torch.zeros(1, 1, 1, 8)
    assert token_loss(uniform, torch.tensor([[[3]]]), 2.0).item() == pytest.approx(math.log(8), rel=1e-5)


def test_every_pass_sees_every_frame_once() -> None:
    config = msgspec.structs.replace(SFT, batch_frames=20)
    rows: list[int] = []
    for step in range(9):
        rows += rows_of_step(config, step, 90).tolist()
    assert sorted(rows[:90]) == sorted(rows[90:180]) == list(range(90))


def test_pieces_of_a_supervised_step_add_up(toy_policy: Maker, toy_demonstrations: DemonstrationSet) -> None:
    norms = []
    for frames in (512, 7):
        config = msgspec.structs.replace(SFT, frames_a_forward=frames)
        scalars = SupervisedLearner(toy_policy(), toy_demonstrations, config).update()
        norms.append((scalars["loss"], scalars["gradient_norm"]))
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_validation_keeps_whole_episodes_apart(toy_demonstrations: DemonstrationSet) -> None:
    training, validation = toy_demonstrations.split(0.1)
    assert len(np.unique(validation.episode)) == 3
    assert not set(training.episode) & set(validation.episode)
    assert len(training) + len(validation) == len(toy_demonstrations)


def test_shift_moves_by_at_most_its_range_and_repeats_the_border() -> None:
    image = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8, 1).expand(20, 1, 8, 8, 3)
    moved = shift(image, 2, torch.Generator().manual_seed(0))
    padded = F.pad(image.permute(0, 1, 4, 2, 3)[:, 0].float(), (2, 2, 2, 2), mode="replicate").permute(0, 2, 3, 1)
    windows = [padded[0, y : y + 8, x : x + 8].byte() for y in range(5) for x in range(5)]
    assert all(any(torch.equal(row[0], window) for window in windows) for row in moved)
    assert len({row[0].numpy().tobytes() for row in moved}) > 5


def test_colour_changes_stay_in_range() -> None:
    images = torch.full((200, 1, 2, 2, 3), 100, dtype=torch.uint8)
    changed = change_colour(images, 0.2, 0.1, torch.Generator().manual_seed(0)).float()
    assert changed.min() >= 100 * 0.8 * 0.9 - 0.5 and changed.max() <= 100 * 1.2 * 1.1 + 0.5
    assert changed.std() > 5
    assert torch.equal(change_colour(images, 0.0, 0.0, torch.Generator()), images)


def test_checkpoints_are_whole_or_absent_and_old_ones_go(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        save_checkpoint(tmp_path, step, {"model": {"w": torch.full((2,), float(step))}}, keep=2)
    (tmp_path / ".step_000008.partial").mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == ["step_000004", "step_000006"]
    state = load_checkpoint(tmp_path)
    assert state is not None and state["step"] == 6 and state["model"]["w"].tolist() == [6, 6]
    assert load_checkpoint(tmp_path / "empty") is None
