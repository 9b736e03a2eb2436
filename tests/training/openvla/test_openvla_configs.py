"""The configs that carry the paper's table, and what bfloat16 weights would make of its rate."""

import logging
from pathlib import Path

import pytest
import torch

from rehearsal.config import read_toml
from training.imitation.sft_run import SFTRun
from training.policies.model_training import LoraOptions, ModelTraining
from training.policies.openvla.adopt import ImportOpenVLA, import_openvla
from training.policies.openvla.options import OpenVLAOptions, Precision
from training.policies.openvla.statistics import write_statistics
from training.policies.openvla.tiny import make_tiny, tiny_sizes, write_tiny
from training.reinforcement.grpo_run import GRPORun

ROOT = Path(__file__).parents[3]
CELL = ROOT / "launch/cells/single_piper.toml"


@pytest.mark.parametrize("robot", ["libero", "robotwin"])
def test_grpo_has_the_papers_table(robot: str) -> None:
    config = read_toml(ROOT / f"launch/training/openvla_oft_{robot}_grpo.toml", GRPORun)
    training, sampling = config.training, config.training.sampling
    assert training.groups * training.group_size == 512 and training.group_size == 8
    assert (training.minibatches, training.epochs) == (4, 1), "four steps of 128 trajectories"
    assert (training.learning_rate, training.warmup_steps, training.weight_decay) == (5e-6, 0, 0.01)
    assert (training.clip_low, training.clip_high, training.gradient_clip) == (0.2, 0.28, 1.0)
    assert (training.temperature, training.ratio_of, training.aggregation) == (1.6, "token", "trajectory_mean")
    assert (training.kl_coefficient, training.entropy_coefficient) == (0, 0)
    assert sampling.enabled and (sampling.success_low, sampling.success_high) == (0.1, 0.9)
    if robot == "libero":
        assert (sampling.split, sampling.scenarios, config.horizon_steps) == ("stored", 500, 512)
    else:
        assert sampling.scenarios == 1000


def test_sft_has_the_layouts_that_grpo_goes_on_with() -> None:
    libero, two_arms = (
        read_toml(ROOT / f"launch/training/openvla_oft_{robot}_sft.toml", SFTRun).openvla
        for robot in ("libero", "robotwin")
    )
    assert libero == OpenVLAOptions(weights="float32"), "the defaults are LIBERO's"
    assert (two_arms.chunk_steps, two_arms.bounds, two_arms.mirror) == (25, "extremes", False)
    assert two_arms.proprioception and two_arms.cameras == ("head",)


def test_at_the_papers_rate_bfloat16_weights_hardly_move() -> None:
    """So the policy that GRPO begins with keeps float32 weights, and the arithmetic alone is bfloat16."""
    for robot in ("libero", "robotwin"):
        begun = read_toml(ROOT / f"launch/training/openvla_oft_{robot}_sft.toml", SFTRun)
        goes_on = read_toml(ROOT / f"launch/training/openvla_oft_{robot}_grpo.toml", GRPORun)
        assert begun.openvla.weights == "float32" and begun.model.mixed_precision and goes_on.model.mixed_precision
    rate, steps, moved = goes_on.training.learning_rate, 20, {}
    for dtype in (torch.float32, torch.bfloat16):
        weights = torch.nn.Parameter((torch.randn(10_000, generator=torch.Generator().manual_seed(0)) / 64).to(dtype))
        before = weights.detach().float().clone()
        optimiser = torch.optim.AdamW([weights], lr=rate, weight_decay=0.01)
        weights.grad = torch.ones_like(weights)
        for _ in range(steps):
            optimiser.step()
        moved[dtype] = float((before - weights.detach().float()).mean()) / (rate * steps)
    assert moved[torch.float32] == pytest.approx(1, abs=0.01) and moved[torch.bfloat16] < 0.3


@pytest.mark.parametrize(
    ("weights", "model", "warned"),
    [
        ("bfloat16", ModelTraining(), True),
        ("bfloat16", ModelTraining(lora=LoraOptions(rank=2)), False),
        ("float32", ModelTraining(mixed_precision=True), False),
    ],
)
def test_training_all_of_bfloat16_weights_is_warned_of(
    weights: Precision, model: ModelTraining, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sizes = tiny_sizes(image_px=28, hidden=16, layers=1)
    folder = write_tiny(tmp_path / "checkpoint", make_tiny(sizes, 0, chunk_steps=1, action_dim=7))
    part = {"min": [-1.0] * 7, "max": [1.0] * 7}
    write_statistics(folder, {"own": {"action": part, "proprio": part}})
    options = OpenVLAOptions(cameras=("wrist",), mirror=False, bounds="extremes", weights=weights)
    policy = import_openvla(
        ImportOpenVLA(checkpoint=folder, cell=CELL, task="click_bell", policy=options, out=tmp_path / "policy")
    )
    with caplog.at_level(logging.WARNING):
        policy.begin_training(model)
    assert ("round to nothing" in caplog.text) == warned
