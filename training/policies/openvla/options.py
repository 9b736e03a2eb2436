"""What an OpenVLA checkpoint can be told about a workplace, apart from the packages that run one."""

from typing import Literal

import msgspec

Attention = Literal["bidirectional", "causal"]
Head = Literal["tokens", "l1"]
"""What acts: the action tokens, which reinforcement needs, or the L1 regression head."""
Bounds = Literal["q99", "extremes"]
"""q99: from the first to the last percentile (LIBERO). extremes: from minimum to maximum (ALOHA, RoboTwin)."""
Precision = Literal["float32", "bfloat16"]


class OpenVLAOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a checkpoint is told about the workplace; the defaults are LIBERO's."""

    cameras: tuple[str, ...] = ("agentview",)
    """Cameras that it looks through, in its order; ALOHA's checkpoints have head, left wrist, right wrist."""
    side_px: int = 256
    """Side of the square pictures that a simulator draws for it."""
    chunk_steps: int = 8
    """Control steps a decision: 8 on LIBERO, 25 on ALOHA and RoboTwin; 1 with causal attention."""
    attention: Attention = "bidirectional"
    """bidirectional: OpenVLA-OFT; causal: OpenVLA."""
    head: Head = "tokens"
    """tokens: action tokens; l1: the regression head beside the checkpoint, for evaluation and serving alone."""
    bounds: Bounds = "q99"
    """What is -1 and 1. q99: first and last percentile (LIBERO); extremes: minimum and maximum (ALOHA, RoboTwin)."""
    mirror: bool = True
    """Mirror pictures left to right: LIBERO's checkpoints see the stock environment's, upside down, turned by 180
    degrees, and here pictures are upright."""
    resize_first: bool = False
    """Resize pictures to 256 px first, as ALOHA's are."""
    squash: bool = False
    """Squash a picture that is not square, as published ALOHA and RoboTwin checkpoints do; else its centre is cut."""
    proprioception: bool = False
    """Give a checkpoint that has no projector of the state a new one, to be fine-tuned; its own is always used."""
    prompt_length: int = 48
    """Tokens of a prompt, padding included."""
    weights: Precision = "bfloat16"
    """Type of the weights; float32 with mixed precision."""
