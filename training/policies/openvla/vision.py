"""The two vision backbones, DINOv2 with registers and SigLIP, from transformers, and the projector behind them.

What OpenVLA takes is what the last block but one gives for the patches, without the final norm; so the last block, the
norm and SigLIP's pooling are not built at all, and only kept for saving.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import (
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from training.policies.openvla.config import PATCH_PX, OpenVLASizes, VisionSizes

NORM_EPSILON = 1e-6  # of timm's models; transformers' default for neither


class DinoPatches(nn.Module):
    """pictures float (B, 3, px, px), normalised -> patches (B, P, width)."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.prefix = 1 + sizes.registers
        config = Dinov2WithRegistersConfig(
            hidden_size=sizes.width,
            num_hidden_layers=sizes.depth - 1,
            num_attention_heads=sizes.heads,
            image_size=sizes.image_px,
            patch_size=PATCH_PX,
            mlp_ratio=sizes.mlp // sizes.width,
            num_register_tokens=sizes.registers,
            layer_norm_eps=NORM_EPSILON,
            hidden_act="gelu",
            attn_implementation="sdpa",
        )
        model = Dinov2WithRegistersModel(config)
        self.embeddings, self.encoder = model.embeddings, model.encoder
        self.embeddings.mask_token = None  # of DINO's own training; nothing here is masked

    def forward(self, pictures: Tensor) -> Tensor:
        return self.encoder(self.embeddings(pictures)).last_hidden_state[:, self.prefix :]


class SiglipPatches(nn.Module):
    """pictures float (B, 3, px, px), normalised -> patches (B, P, width)."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        config = SiglipVisionConfig(
            hidden_size=sizes.width,
            num_hidden_layers=sizes.depth - 1,
            num_attention_heads=sizes.heads,
            intermediate_size=sizes.mlp,
            image_size=sizes.image_px,
            patch_size=PATCH_PX,
            layer_norm_eps=NORM_EPSILON,
            hidden_act="gelu",  # timm's SigLIP uses the exact one, transformers' default is the tanh approximation
            vision_use_head=False,
            attn_implementation="sdpa",
        )
        model = SiglipVisionModel(config)
        inner = getattr(model, "vision_model", model)
        self.embeddings, self.encoder = inner.embeddings, inner.encoder

    def forward(self, pictures: Tensor) -> Tensor:
        return self.encoder(inputs_embeds=self.embeddings(pictures)).last_hidden_state


class VisionBackbone(nn.Module):
    """pixel_values float (B, 6 n, px, px): of each picture DINO's three channels, then SigLIP's -> (B, n P, width)."""

    def __init__(self, sizes: OpenVLASizes) -> None:
        super().__init__()
        self.dino, self.siglip = DinoPatches(sizes.dino), SiglipPatches(sizes.siglip)

    def forward(self, pixel_values: Tensor) -> Tensor:
        batch, channels = pixel_values.shape[:2]
        pictures = pixel_values.unflatten(1, (channels // 6, 6)).flatten(0, 1)
        patches = torch.cat([self.dino(pictures[:, :3]), self.siglip(pictures[:, 3:])], dim=-1)
        return patches.unflatten(0, (batch, channels // 6)).flatten(1, 2)


class Projector(nn.Module):
    """patches (..., vision width) -> tokens of the language model (..., hidden)."""

    def __init__(self, sizes: OpenVLASizes) -> None:
        super().__init__()
        vision, hidden = sizes.dino.width + sizes.siglip.width, sizes.llama.hidden_size
        self.fc1, self.fc2 = nn.Linear(vision, 4 * vision), nn.Linear(4 * vision, hidden)
        self.fc3 = nn.Linear(hidden, hidden)

    def forward(self, patches: Tensor) -> Tensor:
        gelu = nn.functional.gelu
        return self.fc3(gelu(self.fc2(gelu(self.fc1(patches)))))


def used_blocks(sizes: VisionSizes) -> int:
    """Returns how many of the published blocks are run."""
    return sizes.depth - 1


# Published name within a block -> ours; those of the attention's query, key and value stand in one tensor there.
_DINO_BLOCK = {
    "attn.proj": "attention.o_proj",
    "ls1.scale_factor": "layer_scale1.lambda1",
    "ls2.scale_factor": "layer_scale2.lambda1",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "norm1": "norm1",
    "norm2": "norm2",
}
_SIGLIP_BLOCK = {
    "attn.proj": "self_attn.out_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
}
_QKV = {
    "dino": [f"attention.{name}" for name in ("q_proj", "k_proj", "v_proj")],
    "siglip": [f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj")],
}
_DINO_TOP = {
    "cls_token": "embeddings.cls_token",
    "reg_token": "embeddings.register_tokens",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
}
_SIGLIP_TOP = {
    "patch_embed.proj.weight": "embeddings.patch_embedding.weight",
    "patch_embed.proj.bias": "embeddings.patch_embedding.bias",
}
_WHICH = {"dino": ("featurizer", "layer", _DINO_BLOCK, _DINO_TOP),
          "siglip": ("fused_featurizer", "layers", _SIGLIP_BLOCK, _SIGLIP_TOP)}  # fmt: skip


def published_vision_names(sizes: OpenVLASizes) -> dict[str, tuple[str, ...]]:
    """Returns published name -> ours below `vision.`; three of ours where they are stacked along the first axis.

    Positions are left out: they change shape, see `vision_positions`.
    """
    names: dict[str, tuple[str, ...]] = {}
    for ours, (theirs, layers, block, top) in _WHICH.items():
        prefix = f"vision_backbone.{theirs}"
        names |= {f"{prefix}.{name}": (f"{ours}.{own}",) for name, own in top.items()}
        for number in range(used_blocks(getattr(sizes, ours))):
            source, target = f"{prefix}.blocks.{number}", f"{ours}.encoder.{layers}.{number}"
            for name, own in block.items():
                for part in ("",) if name.endswith("scale_factor") else (".weight", ".bias"):
                    names[f"{source}.{name}{part}"] = (f"{target}.{own}{part}",)
            for part in ("weight", "bias"):
                names[f"{source}.attn.qkv.{part}"] = tuple(f"{target}.{name}.{part}" for name in _QKV[ours])
    return names


DINO_POSITIONS = "vision_backbone.featurizer.pos_embed"
SIGLIP_POSITIONS = "vision_backbone.fused_featurizer.pos_embed"


def own_positions(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the position embeddings as transformers wants them: DINO's class token has one, which timm's has not."""
    dino, siglip = published[DINO_POSITIONS], published[SIGLIP_POSITIONS]
    return {
        "dino.embeddings.position_embeddings": torch.cat([torch.zeros_like(dino[:, :1]), dino], dim=1),
        "siglip.embeddings.position_embedding.weight": siglip[0],
    }


def published_positions(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `own_positions`; names begin below `vision.`."""
    return {
        DINO_POSITIONS: own["dino.embeddings.position_embeddings"][:, 1:],
        SIGLIP_POSITIONS: own["siglip.embeddings.position_embedding.weight"][None],
    }
