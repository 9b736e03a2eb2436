"""Plans against hand computation, and activations against torch's own measure."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rehearsal.action_codec import ActionCodec
from rehearsal.errors import RehearsalError
from training.engine.engine import EngineOptions
from training.plan.activations import AGREEMENT, Activations, estimate_activations, measured_peak
from training.plan.device_memory import GIB, Setting, activations_of, device_memory, frames_a_forward
from training.plan.outline import compact_outline, policy_outline
from training.plan.plan import HardwareOptions, Work, lines, make_plan, show_plan
from training.policies.compact import CompactPolicy, CompactPolicyConfig
from training.policies.model_training import LoraOptions, ModelTraining
from training.policies.openvla.config import KNOWN
from training.policies.openvla.policy import OpenVLARecord
from training.policies.openvla.tiny import make_tiny, tiny_sizes
from training.policies.openvla.transform import OpenVLATransform
from training.policies.policy import write_record
from training.policies.token_distribution import log_probs_and_entropy
from training.policies.trained_policy import TrainedPolicy
from training.simulators.libero.actions import ACTION_SPEC

ROOT = Path(__file__).parents[3]
Maker = Callable[..., TrainedPolicy]
FSDP = EngineOptions(kind="fsdp", precision="bfloat16")
# Llama-2-7B with 32064 words: embeddings and head, 32 layers, the last norm.
LAYER = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
WORDS = 2 * 32064 * 4096
PROJECTOR = (2176 * 8704 + 8704) + (8704 * 4096 + 4096) + (4096 * 4096 + 4096)
# A block: query, key, value and output with biases, two layers with biases, two norms (DINO: two scales as well).
DINO_BLOCK = 4 * (1024**2 + 1024) + 2 * 1024 * 4096 + 4096 + 1024 + 4 * 1024 + 2 * 1024
SIGLIP_BLOCK = 4 * (1152**2 + 1152) + 2 * 1152 * 4304 + 4304 + 1152 + 4 * 1152
# Patches, positions, class token and registers.
DINO_EMBEDDINGS = (3 * 14 * 14 + 1) * 1024 + 257 * 1024 + 1024 + 4 * 1024
SIGLIP_EMBEDDINGS = (3 * 14 * 14 + 1) * 1152 + 256 * 1152
OUTSIDE = WORDS + 4096 + PROJECTOR + DINO_EMBEDDINGS + SIGLIP_EMBEDDINGS
WEIGHTS = 32 * LAYER + 23 * DINO_BLOCK + 26 * SIGLIP_BLOCK + OUTSIDE


def seven_billion(folder: Path, layers: int = 32) -> Path:
    """Writes what a policy's folder of OpenVLA-OFT holds beside its weights, for LIBERO."""
    sizes = {"model_type": "llama", "vocab_size": 32064, "num_hidden_layers": layers}
    config = {
        "model_type": "openvla", "use_fused_vision_backbone": True, "timm_model_ids": list(KNOWN),
        "image_sizes": [224, 224], "text_config": sizes,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    transform = OpenVLATransform(
        cameras=("agentview",), side_px=256, input_px=224, mirror=True, resize_first=False, squash=False, state=None,
        state_values=8, prompt_length=48,
    )  # fmt: skip
    codec = ActionCodec(
        chunk_steps=8, knots=8, bins=256, lower=(-1.0,) * 7, upper=(1.0,) * 7, relative=(False,) * 7
    )
    record = OpenVLARecord(
        cell="libero_10", task="libero_10", action_spec=ACTION_SPEC, transform=transform, codec=codec,
        attention="bidirectional", head="tokens", weights="float32",
    )  # fmt: skip
    write_record(folder, record)
    return folder


def test_seven_billion_weights_on_eight_devices_fit(tmp_path: Path) -> None:
    """Bytes a weight under FSDP2 with bfloat16 passes: 4 kept, 4 gradient, 8 Adam, all by 8; 2 of the copy sampling.

    Whole for a moment in bfloat16: what is outside the blocks and two layers; gradients of that and a layer in float32.
    """
    outline = policy_outline(seven_billion(tmp_path), ModelTraining())
    assert outline.parameters == WEIGHTS == 7_498_157_728
    setting = Setting(outline, ModelTraining(), FSDP, 8)
    memory = device_memory(setting, 0)
    assert memory.weights == 4 * WEIGHTS // 8 + 2 * (OUTSIDE + 2 * LAYER)
    assert memory.gradients == 4 * WEIGHTS // 8 + 4 * (OUTSIDE + LAYER)
    assert memory.optimiser == 8 * WEIGHTS // 8
    assert memory.replica == 2 * WEIGHTS
    assert memory.total / GIB == pytest.approx(31.3, abs=0.1)
    plan = make_plan(setting, HardwareOptions(devices=8, device_gib=80), PAPER)
    # 345 places of 32 layers: query, key and value twice, three inputs and two norms of 4096, 4 x 11008, 2 bytes.
    layers = 32 * 353 * (11 * 4096 + 4 * 11008) * 2
    assert plan.activations.a_frame == pytest.approx(layers, rel=0.35) and plan.activations.a_frame > layers
    assert plan.fits and plan.largest_frames == 16
    text = "\n".join(lines(plan))
    assert "passes over a frame: 3 (rollout 1, update 2" in text and "4 forward and 1 backward" in text
    assert "512 trajectories, at most 262,144 control steps and 32,768 frames" in text
    assert "optimiser steps a batch: 4, each of at most 8,192 frames: 64 passes a device" in text


PAPER = Work(
    frames=512 * 64, frames_a_forward=16, optimiser_steps=4, trajectories=512, control_steps=512 * 512
)  # fmt: skip


@pytest.mark.slow
def test_one_card_of_24_gib_refuses_and_names_adapters(tmp_path: Path) -> None:
    command = [
        sys.executable, "training/grpo.py", "--plan", "--policy", str(seven_billion(tmp_path)), "--suite", "libero_10",
        "--model.mixed-precision", "--hardware.device-gib", "24", "--training.frames-a-forward", "16",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and last.startswith("error: ") and "22.1 of 24 can be used" in last
    assert "--model.lora.rank 32 --model.gradient-checkpointing on a checkpoint adopted with weights bfloat16" in last
    assert "--engine.kind fsdp on 32 devices with --model.gradient-checkpointing" in last
    assert "GiB a device:" in done.stdout and not (ROOT / "runs/grpo").exists()


def test_adapters_learn_alone(tmp_path: Path) -> None:
    """A layer of Llama with adapters of rank r: r (in + out) for each of its seven matrices."""
    training = ModelTraining(lora=LoraOptions(rank=32), freeze_vision=True)
    one, two = (policy_outline(seven_billion(tmp_path, layers), training, "bfloat16") for layers in (1, 2))
    assert two.learning - one.learning == 32 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    memory = device_memory(Setting(one, training, EngineOptions(precision="bfloat16"), 1), 0)
    frozen = one.parameters - one.learning
    assert memory.weights == 2 * frozen + 4 * one.learning
    assert (memory.gradients, memory.optimiser, memory.replica) == (4 * one.learning, 8 * one.learning, 0)


def test_a_compact_policy_is_refused_what_is_too_small_for_it(toy_policy: Maker, tmp_path: Path) -> None:
    policy = toy_policy()
    policy.save(tmp_path)
    outline = policy_outline(tmp_path, ModelTraining())
    count = sum(weights.numel() for weights in policy.model.parameters())
    assert outline.parameters == count
    setting = Setting(outline, ModelTraining(), EngineOptions(), 1, learners=2, reference=True)
    memory = device_memory(setting, 7)
    assert (memory.weights, memory.gradients, memory.optimiser) == (8 * count, 8 * count, 16 * count)
    assert (memory.replica, memory.activations) == (4 * count, 7)
    small = HardwareOptions(device_gib=0.008)
    largest = frames_a_forward(setting, activations_of(setting), small.device_gib * GIB)
    plan = make_plan(setting, small, Work(frames=99, frames_a_forward=largest + 1, optimiser_steps=1))
    with pytest.raises(RehearsalError, match=f"give --training.frames-a-forward {largest}$"):
        show_plan(plan, lambda training, weights: outline)
    assert make_plan(setting, small, Work(frames=99, frames_a_forward=largest, optimiser_steps=1)).fits
    with pytest.raises(RehearsalError, match="engine.kind = 'local' learns on one"):
        make_plan(setting, HardwareOptions(devices=2), Work(frames=9, frames_a_forward=1, optimiser_steps=1))


def test_frames_follow_from_the_budget() -> None:
    cost = Activations(fixed=100, a_frame=10)
    assert [cost.frames_in(budget) for budget in (99, 109, 110, 129, 130)] == [0, 0, 1, 2, 3]
    assert cost.of(3) == 130


def compact(**sizes: Any) -> tuple[torch.nn.Module, Any]:
    config = CompactPolicyConfig(**sizes)
    return CompactPolicy.new(config, 0), compact_outline(config, 16, 10).inputs


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("sizes", [{}, {"side_px": 32, "width": 32, "layers": 1, "heads": 2, "head": "categorical"}])
def test_compact_activations_are_what_torch_measures(sizes: dict[str, Any], autocast: bool) -> None:
    model, inputs = compact(**sizes)
    assert_measured(model, inputs, 32, estimate_activations(model, inputs, autocast=autocast), autocast)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_openvla_activations_are_what_torch_measures(checkpointing: bool) -> None:
    model = make_tiny(tiny_sizes(hidden=128, layers=6), 0, chunk_steps=8, action_dim=7).train()
    inputs = {
        "images": ((1, 56, 56, 3), torch.uint8), "state": ((8,), torch.float32), "text": ((32,), torch.int64),
    }  # fmt: skip
    found = estimate_activations(model, inputs)
    if checkpointing:
        model.checkpoint_gradients()
        found = estimate_activations(model, inputs).with_one_layer_of(found, 6)
    assert_measured(model, inputs, 8, found, False)


def assert_measured(model: torch.nn.Module, inputs: Any, frames: int, found: Activations, autocast: bool) -> None:
    for weights in model.parameters():
        weights.grad = torch.zeros_like(weights)

    def step() -> None:
        batch = {name: torch.ones((frames, *shape), dtype=dtype) for name, (shape, dtype) in inputs.items()}
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = model(**batch)
            scores, entropy = log_probs_and_entropy(logits, torch.zeros(logits.shape[:-1], dtype=torch.int64))
        (scores.sum() + entropy.sum()).backward()

    step()
    ratio = measured_peak(step) / found.of(frames)
    assert 1 / AGREEMENT < ratio < AGREEMENT
