"""OpenVLA by the public commands: fine-tuned on the twin, reinforced, evaluated; regression is not reinforced."""

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from rehearsal.errors import RehearsalError
from rehearsal.simulation import ObservationBatch
from training.evaluation.evaluate_run import EvaluateRun, run_evaluation
from training.experts.collection import CollectConfig, collect
from training.imitation.sft import SFTConfig
from training.imitation.sft_run import SFTRun, run_sft
from training.policies.model_training import LoraOptions, ModelTraining
from training.policies.openvla.adopt import ImportOpenVLA, import_openvla
from training.policies.openvla.checkpoint import load_openvla_model
from training.policies.openvla.heads import L1Head
from training.policies.openvla.options import OpenVLAOptions
from training.policies.openvla.policy import OpenVLAPolicy
from training.policies.policy import load_policy
from training.policies.trained_policy import TrainedPolicy, to_tensors
from training.reinforcement.dynamic_sampling import DynamicSampling
from training.reinforcement.grpo import GRPOConfig
from training.reinforcement.grpo_run import GRPORun, run_grpo
from training.reinforcement.ppo import PPOConfig
from training.reinforcement.ppo_run import PPORun, run_ppo
from training.run_folder import read_curve
from training.training_loop import LoopOptions

ROOT = Path(__file__).parents[3]
CELL = ROOT / "launch/cells/single_piper.toml"
LOOK = LoopOptions(evaluate_every=0, evaluate_scenarios=2, checkpoint_every=1)
TWIN = OpenVLAOptions(
    cameras=("wrist",), side_px=32, chunk_steps=10, bounds="extremes", mirror=False, proprioception=True,
    prompt_length=24, weights="float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "demonstrations"
    collect(CollectConfig(cell=CELL, episodes=3, out=folder, side_px=32, cameras=("wrist",), max_worlds=3))
    return folder


def sft_run(checkpoint: Path, demonstrations: Path, out: Path, **changes: object) -> SFTRun:
    options: dict[str, object] = {
        "out": out, "demonstrations": demonstrations, "cell": CELL, "checkpoint": checkpoint, "openvla": TWIN,
        "stride_steps": 5, "max_worlds": 2, "threads": 1, "loop": LOOK,
        "training": SFTConfig(steps=4, batch_frames=8, warmup_steps=1, learning_rate=3e-3, validation_fraction=0.0),
    }  # fmt: skip
    return SFTRun(**(options | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def sft(tiny_checkpoint: Path, demonstrations: Path) -> Path:
    out = demonstrations.parent / "sft"
    run_sft(sft_run(tiny_checkpoint, demonstrations, out))
    return out


def test_sft_lowers_the_loss_and_leaves_a_checkpoint_with_its_statistics(sft: Path) -> None:
    curve = read_curve(sft)
    assert curve[-1]["loss"] < curve[0]["loss"] - 0.05
    folder = sft / "policy"
    statistics = json.loads((folder / "dataset_statistics.json").read_text())["single_piper_click_bell"]
    assert len(statistics["action"]["q01"]) == 7 and statistics["num_trajectories"] == 3
    assert (folder / "tokenizer.json").is_file()
    policy = load_policy(folder)
    assert isinstance(policy, OpenVLAPolicy)
    assert (policy.cameras, policy.side_px, policy.chunk_steps, policy.state_dim) == (("wrist",), 32, 10, 7)
    model = load_openvla_model(folder, chunk_steps=10, action_dim=7, dtype=torch.float32)
    assert model.proprio is not None, "the new projector of the state is saved beside it"


def look(rows: int = 2) -> ObservationBatch:
    rng = np.random.default_rng(0)
    return ObservationBatch(
        images={"wrist": rng.integers(0, 256, (rows, 32, 32, 3), dtype=np.uint8)},
        state=rng.uniform(0, 1, (rows, 7)).astype(np.float32),
        instructions=["click the bell"] * rows,
    )


def test_adapters_are_merged_into_what_is_saved(tiny_checkpoint: Path, demonstrations: Path, tmp_path: Path) -> None:
    lora = ModelTraining(lora=LoraOptions(rank=4), gradient_checkpointing=True)
    run_sft(sft_run(tiny_checkpoint, demonstrations, tmp_path / "lora", model=lora))
    before = load_openvla_model(tiny_checkpoint, chunk_steps=10, action_dim=7).state_dict()
    after = load_policy(tmp_path / "lora").model.state_dict()  # type: ignore[attr-defined]
    assert set(after) - set(before) == {name for name in after if name.startswith("proprio.")}
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(after[name], before[name])
    assert torch.equal(after["language_model.lm_head.weight"], before["language_model.lm_head.weight"])


def test_grpo_and_ppo_run_from_it_and_evaluation_reads_the_result(sft: Path, tmp_path: Path) -> None:
    shared = {"policy": sft, "cell": CELL, "loop": LOOK, "pass_at": 0, "max_worlds": 4, "threads": 1}
    grpo = GRPOConfig(
        steps=1, groups=2, group_size=2, learning_rate=1e-4, minibatches=1, frames_a_forward=5,
        progress_weight=0.5, sampling=DynamicSampling(enabled=False),
    )  # fmt: skip
    run_grpo(GRPORun(out=tmp_path / "grpo", training=grpo, **shared))  # type: ignore[arg-type]
    curve = read_curve(tmp_path / "grpo")
    assert curve[-1]["ratio"] == pytest.approx(1, abs=1e-3), "sampling and scoring use one distribution"
    ppo = PPOConfig(steps=1, trajectories=2, minibatches=1, epochs=1, frames_a_forward=5)
    run_ppo(PPORun(out=tmp_path / "ppo", training=ppo, **shared))  # type: ignore[arg-type]
    assert read_curve(tmp_path / "ppo")[-1]["value_loss"] >= 0
    assert "/2 = " in run_evaluation(EvaluateRun(policy=tmp_path / "grpo", cell=CELL, n=2))
    runs = [run["run"] for run in load_policy(tmp_path / "grpo").record.history]
    assert runs == ["sft", "grpo"]


def test_a_causal_checkpoint_samples_and_scores_one_distribution(sft: Path, tmp_path: Path) -> None:
    options = msgspec.structs.replace(TWIN, attention="causal", chunk_steps=1)
    wanted = {"checkpoint": sft / "policy", "cell": CELL, "task": "click_bell", "out": tmp_path / "ar"}
    policy = import_openvla(ImportOpenVLA(policy=options, **wanted))  # type: ignore[arg-type]
    inputs = policy.transform(look())
    tokens, scores = policy.sample(inputs, 1.3, np.random.default_rng(1).random((2, 1, 7)))
    with torch.no_grad():
        logits = policy.token_logits(to_tensors(inputs), torch.from_numpy(tokens)) / 1.3
    expected = logits.log_softmax(-1).gather(-1, torch.from_numpy(tokens)[..., None]).squeeze(-1)
    assert scores == pytest.approx(expected.numpy(), abs=1e-4)
    assert load_policy(tmp_path / "ar").act(look()).shape == (2, 1, 7)


def test_what_acts_by_regression_is_served_and_not_reinforced(sft: Path, tmp_path: Path) -> None:
    folder = tmp_path / "l1"
    policy = load_policy(sft)
    assert isinstance(policy, OpenVLAPolicy)
    with_head = TrainedPolicy.duplicate(policy)
    with_head.model.l1_head = L1Head(32, 7)
    with_head.record = msgspec.structs.replace(policy.record, head="l1")
    with_head.save(folder)
    again = load_policy(folder)
    actions = again.act(look())
    assert actions.shape == (2, 10, 7) and not np.allclose(actions, policy.act(look()))
    with pytest.raises(RehearsalError, match="acts by its L1 head, which gives no probabilities"):
        run_grpo(GRPORun(policy=folder, cell=CELL, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_tokens_that_were_never_trained_are_refused_on_a_demonstration(
    tiny_checkpoint: Path, sft: Path, demonstrations: Path, tmp_path: Path
) -> None:
    """Random weights with the statistics of the fine-tuned policy: what an L1 training leaves of the head of words."""
    untrained = tmp_path / "untrained"
    shutil.copytree(sft / "policy", untrained)
    shutil.copy(tiny_checkpoint / "model.safetensors", untrained)
    with pytest.raises(RehearsalError, match="cannot be reinforced: its probabilities are"):
        run_grpo(GRPORun(policy=untrained, cell=CELL, demonstrations=demonstrations, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_wrong_requests_are_one_clear_line(tiny_checkpoint: Path, sft: Path, tmp_path: Path) -> None:
    def adopt(checkpoint: Path = sft / "policy", **changes: object) -> None:
        options = msgspec.structs.replace(TWIN, **changes)
        import_openvla(ImportOpenVLA(checkpoint=checkpoint, cell=CELL, task="click_bell", policy=options, out=tmp_path))

    with pytest.raises(RehearsalError, match="unknown camera of single_piper: 'left'; valid: head, wrist"):
        adopt(cameras=("left",))
    with pytest.raises(RehearsalError, match="chunk_steps = 8: with causal attention"):
        adopt(attention="causal", chunk_steps=8)
    with pytest.raises(RehearsalError, match="head = 'l1': .* has no action_head--"):
        adopt(head="l1")
    with pytest.raises(RehearsalError, match="has no dataset_statistics.json"):
        adopt(tiny_checkpoint)
    assert list(tmp_path.iterdir()) == []
