"""How a large pretrained model is made ready to be trained; a compact policy is trained whole and needs none of it."""

import msgspec

from training.engine.engine import EngineOptions


class LoraOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Low-rank adapters (Hu et al. 2022)."""

    rank: int = 0
    """Rank of the adapters; 0: none, all weights are trained."""
    alpha: float | None = None
    """Their scale is alpha / rank; the smaller of rank and 16 by default, as OpenVLA has it."""
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 0 or not 0 <= self.dropout < 1:
            raise ValueError(f"rank must be at least 0 and dropout in [0, 1), got {self.rank} and {self.dropout}")

    @property
    def scale_alpha(self) -> float:
        return self.alpha if self.alpha is not None else min(self.rank, 16)


class ModelTraining(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of an OpenVLA; a compact policy takes the defaults alone."""

    lora: LoraOptions = LoraOptions()
    freeze_vision: bool = False
    """Keep the vision backbones as they are."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: a third more time, a fraction of the memory."""
    mixed_precision: bool = False
    """Keep weights in float32 and compute in bfloat16."""


def for_model(engine: EngineOptions, model: ModelTraining) -> EngineOptions:
    """Returns the engine's options; a model's mixed precision is the engine's bfloat16."""
    return msgspec.structs.replace(engine, precision="bfloat16") if model.mixed_precision else engine
