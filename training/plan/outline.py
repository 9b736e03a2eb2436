"""A policy in outline: its model on `meta`, with shapes and no memory, made ready as for training."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from training.engine.precision import Precision
from training.plan.activations import Activations, InputShapes, estimate_activations
from training.policies.compact import CompactPolicy, CompactPolicyConfig
from training.policies.model_training import ModelTraining
from training.policies.policy import AnyFamily, policy_folder, read_record
from training.policies.trained_policy import PolicyRecord

if TYPE_CHECKING:
    from training.policies.openvla.model import OpenVLA
    from training.policies.openvla.options import OpenVLAOptions

DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, eq=False)
class Outline:
    """inputs: one frame's. weights: their stored type. large: whether `ModelTraining` is for it. layers: those that
    gradient checkpointing computes again. chunk_steps: control steps a frame decides.
    """

    model: nn.Module
    inputs: InputShapes
    weights: Precision
    large: bool
    layers: int
    chunk_steps: int

    @cached_property
    def parameters(self) -> int:
        return sum(weights.numel() for weights in self.model.parameters())

    @cached_property
    def learning(self) -> int:
        return sum(weights.numel() for weights in self.model.parameters() if weights.requires_grad)


# Makes the outline of a policy that is trained with these options and keeps its weights in that type.
MakeOutline = Callable[[ModelTraining, Precision | None], Outline]


def policy_outline(folder: Path, training: ModelTraining, weights: Precision | None = None) -> Outline:
    """Reads a policy's records and sizes, no weights; weights: their type, in place of the stored one.

    Raises RehearsalError when the folder holds no policy of action tokens.
    """
    place = policy_folder(folder)
    if read_record(place, AnyFamily).family == "openvla":
        from training.policies.openvla.config import read_sizes
        from training.policies.openvla.model import OpenVLA
        from training.policies.openvla.policy import OpenVLARecord

        record = read_record(place, OpenVLARecord)
        transform, codec = record.transform, record.codec
        with torch.device("meta"):
            model = OpenVLA(
                read_sizes(place),
                chunk_steps=codec.knots,
                action_dim=codec.dim,
                attention=record.attention,
                state_dim=transform.state_values if transform.state is not None else 0,
            )
        return _openvla(
            model, training, weights or record.weights, len(transform.cameras), transform.prompt_length,
            transform.state_values, codec.chunk_steps,
        )  # fmt: skip
    compact = read_record(place, PolicyRecord)
    config = CompactPolicyConfig.from_pretrained(place, local_files_only=True)
    return compact_outline(config, compact.transform.text_length, compact.codec.chunk_steps)


def compact_outline(config: CompactPolicyConfig, text_length: int, chunk_steps: int) -> Outline:
    with torch.device("meta"):
        model = CompactPolicy(config)
    inputs: InputShapes = {
        "images": ((config.cameras, config.side_px, config.side_px, 3), torch.uint8),
        "state": ((config.state_dim,), torch.float32),
        "text": ((text_length,), torch.int64),
    }
    return Outline(model, inputs, "float32", large=False, layers=0, chunk_steps=chunk_steps)


def checkpoint_outline(
    checkpoint: Path,
    options: "OpenVLAOptions",
    training: ModelTraining,
    weights: Precision | None = None,
    *,
    action_dim: int,
    state_values: int,
) -> Outline:
    """Outlines a published OpenVLA checkpoint as SFT adopts it."""
    from training.policies.openvla.config import read_sizes
    from training.policies.openvla.model import OpenVLA

    with torch.device("meta"):
        model = OpenVLA(
            read_sizes(checkpoint),
            chunk_steps=options.chunk_steps,
            action_dim=action_dim,
            attention=options.attention,
            state_dim=state_values if options.proprioception else 0,
        )
    return _openvla(
        model, training, weights or options.weights, len(options.cameras), options.prompt_length, state_values,
        options.chunk_steps,
    )  # fmt: skip


def _openvla(
    model: "OpenVLA",
    training: ModelTraining,
    weights: Precision,
    cameras: int,
    prompt_length: int,
    state_values: int,
    chunk_steps: int,
) -> Outline:
    from training.policies.openvla.lora import add_lora

    model = model.to(DTYPES[weights])
    if training.lora.rank:
        add_lora(model, training.lora)
    if training.freeze_vision:
        model.freeze_vision()
    px = model.sizes.image_px
    inputs: InputShapes = {
        "images": ((cameras, px, px, 3), torch.uint8),
        "state": ((state_values,), torch.float32),
        "text": ((prompt_length,), torch.int64),
    }
    layers = model.sizes.llama.num_hidden_layers
    return Outline(model, inputs, weights, large=True, layers=layers, chunk_steps=chunk_steps)


@cache
def pass_memory(outline: Outline, *, autocast: bool, native: bool, checkpointing: bool) -> Activations:
    """Returns the memory of a forward and backward pass.

    autocast: float32 weights compute in bfloat16. native: the weights themselves are in bfloat16, as FSDP gathers
    them. checkpointing: whether the language model's layers are computed again.
    """
    model = outline.model
    stored = {name: weights.dtype for name, weights in model.named_parameters()}
    if native:
        for weights in model.parameters():
            weights.data = weights.data.bfloat16()
    if outline.large:
        # Its own autocast, which leaves the head of words as it is.
        model.mixed_precision = autocast  # type: ignore[assignment]
    whole = estimate_activations(model, outline.inputs, autocast=autocast and not outline.large)
    if checkpointing and outline.large:
        model.train().checkpoint_gradients()  # type: ignore[operator]
        kept = estimate_activations(model, outline.inputs, autocast=False)
        model.checkpoint_gradients(False)  # type: ignore[operator]
        whole = kept.with_one_layer_of(whole, outline.layers)
    for name, weights in model.named_parameters():
        weights.data = weights.data.to(stored[name])
    return whole
