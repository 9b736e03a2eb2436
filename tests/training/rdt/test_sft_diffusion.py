"""The diffusion learner: exact resume, that it learns, and the real path once, tiny."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from rehearsal.errors import RehearsalError
from rehearsal.results import read_result
from rehearsal.simulation import scenarios
from training.checkpoint import load_checkpoint, save_checkpoint
from training.evaluation.evaluate_run import EvaluateRun, run_evaluation
from training.experts.collection import CollectConfig, collect
from training.imitation.demonstration_set import DemonstrationSet
from training.imitation.sft_diffusion import DiffusionConfig, DiffusionLearner
from training.imitation.sft_diffusion_run import (
    DiffusionOptions,
    DiffusionRun,
    new_rdt_policy,
    run_sft_diffusion,
)
from training.policies.policy import load_policy
from training.policies.rdt.policy import RDTPolicy
from training.reinforcement.rollout import run_greedy
from training.run_folder import read_curve
from training.training_loop import LoopOptions

CELL = Path(__file__).parents[3] / "launch/cells/single_piper.toml"
TINY = DiffusionOptions(
    cameras=("head",), side_px=16, chunk_steps=4, width=32, depth=2, heads=2, camera_tokens=2, keypoints=8,
    text_buckets=32, text_length=6,
)  # fmt: skip
SFT = DiffusionConfig(
    steps=4, batch_frames=50, noise_levels=2, warmup_steps=2, brightness=0.2, colour=0.1, shift_px=2,
    state_noise=0.1, average_decay=0.5,
)  # fmt: skip


@pytest.fixture
def toy_rdt(toy: Any, toy_demonstrations: DemonstrationSet) -> Any:
    """Returns a maker of fresh policies: seed."""
    place: Any = SimpleNamespace(name="toy", action_spec=toy().action_spec)
    return lambda seed=0: new_rdt_policy(toy_demonstrations, place, "toy_reach", TINY, seed)


def weights(policy: RDTPolicy) -> dict[str, torch.Tensor]:
    return policy.rdt.state_dict() | {f"own.{name}": w for name, w in policy.conditions.state_dict().items()}


def test_two_steps_resume_two_steps_equals_four(
    toy_rdt: Any, toy_demonstrations: DemonstrationSet, tmp_path: Path
) -> None:
    whole = DiffusionLearner(toy_rdt(), toy_demonstrations, SFT)
    expected = [whole.update() for _ in range(4)]
    first = DiffusionLearner(toy_rdt(), toy_demonstrations, SFT)
    found = [first.update() for _ in range(2)]
    save_checkpoint(tmp_path, first.step, first.state())
    second = DiffusionLearner(toy_rdt(seed=9), toy_demonstrations, SFT)
    state = load_checkpoint(tmp_path)
    assert state is not None
    second.load_state(state)
    found += [second.update() for _ in range(2)]
    assert found == expected
    assert second.validate() == whole.validate()
    for name, weight in weights(whole.policy).items():
        assert torch.equal(weight, weights(second.policy)[name]), name


def test_the_policy_is_the_moving_average_of_the_weights(toy_rdt: Any, toy_demonstrations: DemonstrationSet) -> None:
    """The first average is the first step's weights; then half of the average and half of the new weights."""
    learner = DiffusionLearner(toy_rdt(), toy_demonstrations, SFT)
    averages: list[torch.Tensor] = []
    for _ in range(3):
        learner.update()
        now = learner.model.rdt.model.blocks[0].attn.qkv.weight.detach().clone()
        averages.append(now if not averages else (averages[-1] + now) / 2)
        torch.testing.assert_close(learner.policy.rdt.model.blocks[0].attn.qkv.weight, averages[-1])
    assert not torch.allclose(now, averages[-1], atol=1e-6)


def test_it_learns_to_reach(toy: Any, toy_rdt: Any, toy_demonstrations: DemonstrationSet) -> None:
    config = DiffusionConfig(steps=160, batch_frames=45, learning_rate=2e-3, average_decay=0.95, warmup_steps=20)
    learner = DiffusionLearner(toy_rdt(), toy_demonstrations, config)
    simulator, judged = toy(max_worlds=100), scenarios("toy_reach", "validation", 100)
    before = run_greedy(simulator, learner.policy, judged).rate
    losses = [learner.update()["loss"] for _ in range(config.steps)]
    after = run_greedy(simulator, learner.policy, judged).rate
    assert np.mean(losses[-20:]) < 0.3 * np.mean(losses[:5])
    assert learner.validate()["validation_loss"] < 0.5
    assert before < 0.2 and after >= before + 0.3


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "demonstrations"
    collect(CollectConfig(cell=CELL, episodes=4, out=folder, side_px=32, max_worlds=4))
    return folder


def test_a_run_resumes_to_the_same_curve_and_its_policy_is_evaluated(demonstrations: Path, tmp_path: Path) -> None:
    options = msgspec.structs.replace(TINY, cameras=("wrist", "head"), side_px=32)
    config = DiffusionRun(
        out=tmp_path / "whole", demonstrations=demonstrations, cell=CELL, policy=options,
        training=DiffusionConfig(steps=4, batch_frames=16, validation_fraction=0.25),
        loop=LoopOptions(evaluate_every=0, evaluate_scenarios=2, checkpoint_every=1), max_worlds=2, threads=1,
    )  # fmt: skip
    run_sft_diffusion(config)
    halves = msgspec.structs.replace(config, out=tmp_path / "halves")
    state = _stopped_after_two_steps(halves)
    assert state == 2
    run_sft_diffusion(halves)
    curves = [read_curve(run.out) for run in (config, halves)]
    assert curves[0] == curves[1] and {"validation_loss", "success"} <= curves[0][-1].keys()
    policy = load_policy(config.out)
    assert policy.cameras == ("wrist", "head") and policy.record.history[0]["run"] == "whole"
    line = run_evaluation(EvaluateRun(policy=config.out, cell=CELL, n=2, result=tmp_path / "result.json"))
    assert line.startswith("click_bell: greedy ")
    assert read_result(tmp_path / "result.json").figures["click_bell.greedy.n"] == 2
    with pytest.raises(RehearsalError, match="has no tokens to sample; leave it out"):
        run_evaluation(EvaluateRun(policy=config.out, cell=CELL, n=2, pass_at=2))


def _stopped_after_two_steps(config: DiffusionRun) -> int:
    """Interrupts a run as Ctrl-C does, after its second step; returns the step of its last checkpoint."""
    updates = DiffusionLearner.update
    with pytest.MonkeyPatch.context() as patch:

        def update(self: DiffusionLearner) -> dict[str, float]:
            if self.step == 2:
                raise KeyboardInterrupt
            return updates(self)

        patch.setattr(DiffusionLearner, "update", update)
        with pytest.raises(KeyboardInterrupt):
            run_sft_diffusion(config)
    state = load_checkpoint(config.out / "checkpoints")
    assert state is not None
    return int(state["step"])


def test_wrong_options_are_refused(toy_rdt: Any, toy_demonstrations: DemonstrationSet) -> None:
    with pytest.raises(ValueError, match="noise_levels 0 must be at least 1"):
        DiffusionConfig(noise_levels=0)
    with pytest.raises(RehearsalError, match="no demonstrations to train on"):
        DiffusionLearner(toy_rdt(), toy_demonstrations.select(np.arange(0)), SFT)
