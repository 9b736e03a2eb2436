"""What a checkpoint's `config.json` says of the model's sizes (the layout of OpenVLA, Kim et al. 2024).

Published configs name two timm models, whose sizes are constants here. A config of another size carries them in
`tiny_timm_overrides`, as the tests' checkpoints do.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import LlamaConfig

from rehearsal.errors import RehearsalError, unknown_choice

CONFIG = "config.json"
PATCH_PX = 14
# Ids of Llama-2's vocabulary as OpenVLA uses them: the last 256 of its 32000 words are the action tokens, and the
# prompt ends with the empty token, which the tokeniser puts before the first action.
FIRST_ACTION_ID, LAST_ACTION_ID = 31744, 31999
ACTION_BINS = 256
EMPTY_ID, STOP_ID, PAD_ID = 29871, 2, 32000


@dataclass(frozen=True, kw_only=True)
class VisionSizes:
    """One vision transformer; registers: tokens beside the class token, when it has one."""

    width: int
    depth: int
    heads: int
    mlp: int
    image_px: int
    class_token: bool
    registers: int
    layer_scale: bool

    @property
    def patches(self) -> int:
        return (self.image_px // PATCH_PX) ** 2


# timm's vit_large_patch14_reg4_dinov2.lvd142m and vit_so400m_patch14_siglip_224.
DINO = {"embed_dim": 1024, "depth": 24, "num_heads": 16, "mlp_hidden": 4096, "reg_tokens": 4, "class_token": True}
SIGLIP = {"embed_dim": 1152, "depth": 27, "num_heads": 16, "mlp_hidden": 4304, "reg_tokens": 0, "class_token": False}
KNOWN = {"vit_large_patch14_reg4_dinov2.lvd142m": DINO, "vit_so400m_patch14_siglip_224": SIGLIP}


@dataclass(frozen=True)
class OpenVLASizes:
    """dino, siglip: the two vision backbones. llama: the language model's config. raw: `config.json` whole."""

    dino: VisionSizes
    siglip: VisionSizes
    llama: LlamaConfig
    raw: dict[str, Any]

    @property
    def patches(self) -> int:
        """Tokens of one picture."""
        return self.dino.patches

    @property
    def image_px(self) -> int:
        return self.dino.image_px


def read_sizes(folder: Path) -> OpenVLASizes:
    """Reads `config.json`; raises RehearsalError when there is none, or one of another kind of model."""
    path = folder / CONFIG
    if not path.is_file():
        raise RehearsalError(f"no OpenVLA checkpoint in {folder}: {CONFIG} is missing")
    return sizes_of(read_object(path), path)


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file that holds one object; raises RehearsalError when it does not."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RehearsalError(f"{path} is no JSON: {error}; copy the checkpoint again") from None
    if not isinstance(found, dict):
        raise RehearsalError(f"{path} holds a {type(found).__name__}, not an object; copy the checkpoint again")
    return found


def sizes_of(raw: dict[str, Any], path: Path) -> OpenVLASizes:
    """raw: what the file `path` holds."""
    if raw.get("model_type") != "openvla":
        raise unknown_choice(f"model_type of {path}:", raw.get("model_type"), ["openvla"])
    names, pixels = raw.get("timm_model_ids", []), raw.get("image_sizes", [])
    if len(names) != 2 or not raw.get("use_fused_vision_backbone"):
        raise RehearsalError(
            f"{path}: vision backbones {', '.join(names) or 'none'}; only the fused pair {' and '.join(KNOWN)} is known"
        )
    if len(pixels) != 2:
        raise RehearsalError(f"{path}: image_sizes {pixels}; one side [px] for each of the two backbones is needed")
    dino, siglip = (_vision(raw, name, px, path) for name, px in zip(names, pixels, strict=True))
    llama = LlamaConfig(**(_LLAMA_2 | raw.get("text_config", {})), attn_implementation="sdpa")
    llama.use_cache = False
    return OpenVLASizes(dino, siglip, llama, raw)


# What a published text_config leaves out, because it is Llama-2's: it keeps vocabulary and padding alone.
_LLAMA_2 = {
    "vocab_size": 32064,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
}


def _vision(raw: dict[str, Any], name: str, image_px: int, path: Path) -> VisionSizes:
    if name not in KNOWN:
        raise unknown_choice(f"vision backbone in {path}:", name, KNOWN)
    sizes: dict[str, Any] = KNOWN[name] | raw.get("tiny_timm_overrides", {}).get(name, {})
    return VisionSizes(
        width=sizes["embed_dim"],
        depth=sizes["depth"],
        heads=sizes["num_heads"],
        mlp=sizes["mlp_hidden"],
        image_px=image_px,
        class_token=sizes["class_token"],
        registers=sizes["reg_tokens"],
        layer_scale=sizes["class_token"],
    )
