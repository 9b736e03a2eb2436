"""A tiny OpenVLA with random weights from a seed, in the published layout: for tests, and to try a recipe on a CPU.

It knows nothing; what it shares with a published checkpoint is everything else.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.policies.openvla.checkpoint import fill_buffers, save_openvla
from training.policies.openvla.config import CONFIG, KNOWN, OpenVLASizes, VisionSizes, sizes_of
from training.policies.openvla.model import OpenVLA


def tiny_sizes(*, image_px: int = 56, hidden: int = 64, layers: int = 3) -> OpenVLASizes:
    """Returns sizes of about 4 million weights, most of them of the vocabulary."""
    dino, siglip = KNOWN
    raw: dict[str, Any] = {
        "model_type": "openvla",
        "architectures": ["OpenVLAForActionPrediction"],
        "use_fused_vision_backbone": True,
        "timm_model_ids": [dino, siglip],
        "image_sizes": [image_px, image_px],
        "n_action_bins": 256,
        "pad_token_id": 32000,
        "pad_to_multiple_of": 64,
        "text_config": {
            "model_type": "llama",
            "vocab_size": 32064,
            "hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 2048,
        },
        "tiny_timm_overrides": {
            dino: {"embed_dim": 48, "depth": 4, "num_heads": 3, "mlp_hidden": 192},
            siglip: {"embed_dim": 32, "depth": 3, "num_heads": 2, "mlp_hidden": 96},
        },
    }
    return sizes_of(raw, Path(CONFIG))


def make_tiny(
    sizes: OpenVLASizes, seed: int, *, chunk_steps: int, action_dim: int, state_dim: int = 0, l1_head: bool = False
) -> OpenVLA:
    """Returns a model with random weights; the global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = OpenVLA(
            sizes, chunk_steps=chunk_steps, action_dim=action_dim, state_dim=state_dim, l1_head=l1_head
        )
        for weights in model.parameters():
            if weights.ndim > 1:
                nn.init.normal_(weights, std=0.5 / weights.shape[-1] ** 0.5)
        nn.init.normal_(model.language_model.model.embed_tokens.weight, std=0.5)
        with torch.no_grad():  # the published layout has no position for the class token
            model.vision.dino.embeddings.position_embeddings[:, 0] = 0
        model.unused = _unused(sizes.dino, "vision_backbone.featurizer")
        model.unused |= _unused(sizes.siglip, "vision_backbone.fused_featurizer")
    fill_buffers(model)
    return model.eval()


def write_tiny(folder: Path, model: OpenVLA) -> Path:
    """Writes the checkpoint, with DINO's and SigLIP's pixels as published processors state them; returns its folder."""
    save_openvla(model, folder)
    means, stds = model.pixel_mean.view(2, 3).tolist(), model.pixel_std.view(2, 3).tolist()
    (folder / "preprocessor_config.json").write_text(json.dumps({"means": means, "stds": stds}), encoding="utf-8")
    return folder


def _unused(sizes: VisionSizes, prefix: str) -> dict[str, Tensor]:
    """Returns the last block and the norm, which a published checkpoint holds and nothing uses."""
    block, width, mlp = f"{prefix}.blocks.{sizes.depth - 1}", sizes.width, sizes.mlp
    shapes = {
        f"{block}.norm1": (width,), f"{block}.norm2": (width,), f"{block}.attn.qkv": (3 * width, width),
        f"{block}.attn.proj": (width, width), f"{block}.mlp.fc1": (mlp, width), f"{block}.mlp.fc2": (width, mlp),
        f"{prefix}.norm": (width,),
    }  # fmt: skip
    tensors = {f"{name}.weight": torch.randn(*shape) for name, shape in shapes.items()}
    tensors |= {f"{name}.bias": torch.randn(shape[0]) for name, shape in shapes.items()}
    if sizes.layer_scale:
        tensors |= {f"{block}.ls{i}.scale_factor": torch.ones(width) for i in (1, 2)}
    return tensors
