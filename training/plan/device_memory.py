"""Memory that training takes of each device, in its parts, and how many frames a pass may have in a budget.

local and ddp keep everything whole on every device, and the policy that learns is the one that samples. fsdp keeps
shards, and beside them what is whole for a moment: what stands outside the blocks all through a pass, one block in use
and the next one on its way, and their gradients; and a copy of the policy that samples, unless Ray's workers do.
"""

from dataclasses import dataclass, replace

import msgspec
import torch
from torch import nn

from training.engine.blocks import repeated_blocks
from training.engine.engine import EngineOptions
from training.plan.activations import Activations
from training.plan.outline import MakeOutline, Outline, pass_memory
from training.policies.model_training import LoraOptions, ModelTraining

GIB = 2**30
RESERVE = 0.08
"""Share of a device left to the driver, kernels' workspaces, communication and fragmentation."""
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Setting:
    """One way to train: a model in outline, its engine, and on how many devices.

    learners: models of that size that learn, 2 with a critic. copies: of the policy as it samples, that learn nothing:
    under fsdp one where the learner's devices sample, and the reference of a KL term everywhere.
    """

    outline: Outline
    training: ModelTraining
    engine: EngineOptions
    devices: int
    learners: int = 1
    samples_here: bool = True
    reference: bool = False

    @property
    def copies(self) -> int:
        return int(self.engine.kind == "fsdp" and self.samples_here) + int(self.reference)


@dataclass(frozen=True, kw_only=True)
class DeviceMemory:
    """Bytes of one device."""

    weights: int
    gradients: int
    optimiser: int
    activations: int
    replica: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimiser + self.activations + self.replica


def device_memory(setting: Setting, activations: int) -> DeviceMemory:
    """Returns what each device holds at the most; activations: bytes of one pass."""
    outline, engine = setting.outline, setting.engine
    weights = sum(learned_bytes(setting, each) for each in outline.model.parameters())
    learned = sum(learned_bytes(setting, each) for each in outline.model.parameters() if each.requires_grad)
    copy = sum(each.numel() * sampled_itemsize(setting, each) for each in outline.model.parameters())
    gradients, optimiser, whole, whole_gradients = learned, 2 * learned, 0, 0
    if engine.kind == "fsdp":
        weights, gradients, optimiser = (-(-each // setting.devices) for each in (weights, gradients, optimiser))
        whole, whole_gradients = _whole_for_a_moment(setting)
    return DeviceMemory(
        weights=setting.learners * weights + whole,
        gradients=setting.learners * gradients + whole_gradients,
        optimiser=setting.learners * optimiser,
        activations=activations,
        replica=setting.copies * copy,
    )


def activations_of(setting: Setting) -> Activations:
    low = setting.engine.precision == "bfloat16"
    return pass_memory(
        setting.outline,
        autocast=low and setting.engine.kind != "fsdp",
        native=low and setting.engine.kind == "fsdp",
        checkpointing=setting.training.gradient_checkpointing,
    )


def frames_a_forward(setting: Setting, activations: Activations, device_bytes: float) -> int:
    """Returns the most frames a pass may have on devices of so many bytes; 0: not one fits."""
    return activations.frames_in(int(usable(device_bytes)) - device_memory(setting, 0).total)


def usable(device_bytes: float) -> float:
    return device_bytes * (1 - RESERVE)


def learned_bytes(setting: Setting, weights: nn.Parameter) -> int:
    """Returns the bytes of the weights as they are kept: float32 where they learn with bfloat16 passes."""
    in_float32 = setting.engine.precision == "bfloat16" and weights.requires_grad
    return weights.numel() * (FLOAT32_BYTES if in_float32 else weights.element_size())


def sampled_itemsize(setting: Setting, weights: nn.Parameter) -> int:
    """Returns the bytes of one weight of a copy that samples, or of a block that FSDP has gathered."""
    gathered_low = setting.engine.kind == "fsdp" and setting.engine.precision == "bfloat16"
    return torch.bfloat16.itemsize if gathered_low else weights.element_size()


def _whole_for_a_moment(setting: Setting) -> tuple[int, int]:
    """Returns the bytes of gathered weights and of gradients before they are scattered."""
    blocks = repeated_blocks(setting.outline.model)
    sizes = sorted(sum(sampled_itemsize(setting, w) * w.numel() for w in block.parameters()) for block in blocks)
    whole = sum(sampled_itemsize(setting, w) * w.numel() for w in setting.outline.model.parameters())
    rest = whole - sum(sizes)
    in_blocks = {id(w) for block in blocks for w in block.parameters()}
    learned_rest = sum(
        w.numel() for w in setting.outline.model.parameters() if w.requires_grad and id(w) not in in_blocks
    )
    learned_block = max((sum(w.numel() for w in block.parameters() if w.requires_grad) for block in blocks), default=0)
    return rest + sum(sizes[-2:]), FLOAT32_BYTES * (learned_rest + learned_block)


def alternatives(setting: Setting, make: MakeOutline) -> list[tuple[str, Setting]]:
    """Returns what may fit where the setting does not, by the options that make it so, the least change first."""
    found = []
    training = setting.training
    if setting.outline.large and not training.gradient_checkpointing:
        training = msgspec.structs.replace(training, gradient_checkpointing=True)
        found.append(("--model.gradient-checkpointing", replace(setting, training=training)))
    if setting.outline.large and not training.lora.rank:
        lora = msgspec.structs.replace(training, lora=LoraOptions(rank=32))
        small = replace(setting, training=lora, outline=make(lora, "bfloat16"))
        words = "--model.lora.rank 32 --model.gradient-checkpointing on a checkpoint adopted with weights bfloat16"
        found.append((words, small))
    for devices in (2, 4, 8, 16, 32, 64):
        if devices > setting.devices:
            engine = EngineOptions(kind="fsdp", precision=setting.engine.precision)
            spread = replace(setting, engine=engine, devices=devices, training=training)
            words = f"--engine.kind fsdp on {devices} devices"
            if training.gradient_checkpointing:
                words += " with --model.gradient-checkpointing"
            found.append((words, spread))
    return found
