"""RDT-1B's denoiser (Liu et al. 2024, arXiv 2410.07864) with its adaptors, as the published checkpoints hold it.

Tokens: diffusion timestep, control frequency, state, then the H noisy actions. Every block attends over them, then to
the language tokens (even blocks) or the image tokens (odd ones), then a feed-forward layer of the same width.

The checkpoints were trained with the normalisation of timm 1.0.3 (`RmsNorm`), which divides by the standard deviation
and removes no mean; a root mean square in its place shifts the predictions by half of their size.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.policies.rdt.config import ADAPTOR, RDTConfig
from training.policies.rdt.position_embedding import axis_embedding, modality_embedding

FREQUENCIES = 128
LONGEST_PERIOD = 10_000.0
CONTEXT_TOKENS = 3
"""Before the actions: timestep, control frequency, state."""


class RmsNorm(nn.Module):
    """x / sqrt(unbiased variance of x + eps) x weight: the mean is removed in the variance alone."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.var(-1, keepdim=True) + self.eps) * self.weight


class ScalarEmbedder(nn.Module):
    """Numbers (B,) to tokens (B, D), through cosines, then sines, of 128 frequencies."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def waves(self, numbers: Tensor) -> Tensor:
        """Returns float32 (B, 256)."""
        line = torch.arange(FREQUENCIES, dtype=torch.float32, device=numbers.device)
        angle = numbers.float()[:, None] * torch.exp(-math.log(LONGEST_PERIOD) * line / FREQUENCIES)
        return torch.cat([angle.cos(), angle.sin()], dim=-1)

    def forward(self, numbers: Tensor) -> Tensor:
        # Rounded to the weights' type before the first layer, as the published half-precision model was trained.
        return self.mlp(self.waves(numbers).to(next(self.mlp.parameters()).dtype))


class Attention(nn.Module):
    """Self-attention with normalised queries and keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm, self.k_norm = RmsNorm(width // heads), RmsNorm(width // heads)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, N, D)."""
        query, key, value = split_heads(self.qkv(x), 3, self.heads)
        seen = F.scaled_dot_product_attention(self.q_norm(query), self.k_norm(key), value)
        return self.proj(seen.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Attention to condition tokens, with normalised queries and keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.q_norm, self.k_norm = RmsNorm(width // heads), RmsNorm(width // heads)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, condition: Tensor, mask: Tensor | None) -> Tensor:
        """x: (B, N, D). condition: (B, L, D). mask: bool (B, L), True where a token is valid; None: everywhere."""
        (query,) = split_heads(self.q(x), 1, self.heads)
        key, value = split_heads(self.kv(condition), 2, self.heads)
        valid = None if mask is None else mask[:, None, None, :]
        seen = F.scaled_dot_product_attention(self.q_norm(query), self.k_norm(key), value, attn_mask=valid)
        return self.proj(seen.transpose(1, 2).flatten(2))


def split_heads(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """Returns `parts` tensors (B, heads, N, D / heads) of x (B, N, parts x D)."""
    return x.unflatten(2, (parts, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


class FeedForward(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = RmsNorm(width), RmsNorm(width), RmsNorm(width)
        self.attn = Attention(width, heads)
        self.cross_attn = CrossAttention(width, heads)
        self.ffn = FeedForward(width, width)

    def forward(self, x: Tensor, condition: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attn(self.norm1(x))
        x = x + self.cross_attn(self.norm2(x), condition, mask)
        return x + self.ffn(self.norm3(x))


class FinalLayer(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm_final = RmsNorm(width)
        self.ffn_final = FeedForward(width, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.ffn_final(self.norm_final(x))


class Denoiser(nn.Module):
    """From adapted tokens to the clean actions; the names of its parameters are the checkpoint's `model.*`."""

    def __init__(self, config: RDTConfig) -> None:
        super().__init__()
        width, heads = config.config.rdt.hidden_size, config.config.rdt.num_heads
        self.horizon = config.pred_horizon
        self.t_embedder = ScalarEmbedder(width)
        self.freq_embedder = ScalarEmbedder(width)
        self.x_pos_embed = nn.Parameter(torch.zeros(1, CONTEXT_TOKENS + config.pred_horizon, width))
        self.lang_cond_pos_embed = nn.Parameter(torch.zeros(1, config.max_lang_cond_len, width))
        self.img_cond_pos_embed = nn.Parameter(torch.zeros(1, config.img_cond_len, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(config.config.rdt.depth))
        self.final_layer = FinalLayer(width, config.action_dim)

    def forward(
        self,
        x: Tensor,
        frequency_hz: Tensor,
        timestep: Tensor,
        language: Tensor,
        image: Tensor,
        language_mask: Tensor | None = None,
        image_mask: Tensor | None = None,
    ) -> Tensor:
        """Returns the prediction (B, H, U).

        x: (B, 1 + H, D), state and noisy actions. frequency_hz: (B,). timestep: (B,), or (1,) for all. language:
        (B, L, D), at most `max_lang_cond_len` tokens. image: (B, img_cond_len, D). Masks: bool, True where valid.
        """
        time = self.t_embedder(timestep).unsqueeze(1).expand(len(x), -1, -1)
        x = torch.cat([time, self.freq_embedder(frequency_hz).unsqueeze(1), x], dim=1) + self.x_pos_embed
        language = language + self.lang_cond_pos_embed[:, : language.shape[1]]
        image = image + self.img_cond_pos_embed
        for number, block in enumerate(self.blocks):
            condition, mask = (image, image_mask) if number % 2 else (language, language_mask)
            x = block(x, condition, mask)
        return self.final_layer(x)[:, -self.horizon :]

    def reset(self, config: RDTConfig) -> None:
        """Sets the weights that training begins with: the first prediction is zero everywhere."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        for layer in (*self.t_embedder.mlp, *self.freq_embedder.mlp):
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
        nn.init.zeros_(self.final_layer.ffn_final.fc2.weight)
        width = config.config.rdt.hidden_size
        row = [("timestep", 1), ("frequency", 1), ("state", 1), ("action", self.horizon)]
        starts = {
            self.x_pos_embed: modality_embedding(width, row, mark=True),
            self.lang_cond_pos_embed: axis_embedding(width, config.max_lang_cond_len),
            self.img_cond_pos_embed: axis_embedding(width, config.img_cond_len),
        }
        if config.lang_pos_embed_config is not None:
            starts[self.lang_cond_pos_embed] = modality_embedding(width, config.lang_pos_embed_config, mark=False)
        if config.img_pos_embed_config is not None:
            starts[self.img_cond_pos_embed] = modality_embedding(width, config.img_pos_embed_config, mark=False)
        with torch.no_grad():
            for parameter, start in starts.items():
                parameter.copy_(torch.from_numpy(start).unsqueeze(0))


class RDT(nn.Module):
    """The denoiser and the adaptors that bring language, image, state and action tokens to its width."""

    def __init__(self, config: RDTConfig) -> None:
        super().__init__()
        self.config = config
        width, kinds = config.config.rdt.hidden_size, config.config
        self.model = Denoiser(config)
        self.lang_adaptor = adaptor(kinds.lang_adaptor, config.lang_token_dim, width)
        self.img_adaptor = adaptor(kinds.img_adaptor, config.img_token_dim, width)
        # A state or an action comes with the mask of its valid slots behind it.
        self.state_adaptor = adaptor(kinds.state_adaptor, 2 * config.state_token_dim, width)

    @classmethod
    def new(cls, config: RDTConfig, seed: int) -> "RDT":
        """Returns a model with fresh weights, the same for the same seed; the global generator is left alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            rdt = cls(config)
            rdt.model.reset(config)
        return rdt

    @property
    def dtype(self) -> torch.dtype:
        return self.model.x_pos_embed.dtype

    @property
    def device(self) -> torch.device:
        return self.model.x_pos_embed.device


def adaptor(kind: str, width_in: int, width_out: int) -> nn.Module:
    """Returns a linear layer, or for `mlpNx_gelu` N of them with a GELU between."""
    match = ADAPTOR.fullmatch(kind)
    if match is None:
        raise ValueError(f"unknown adaptor {kind!r}; valid: linear, mlp2x_gelu, mlp3x_gelu, ...")
    if match.group(1) is None:
        return nn.Linear(width_in, width_out)
    layers: list[nn.Module] = [nn.Linear(width_in, width_out)]
    for _ in range(1, int(match.group(1))):
        layers += [nn.GELU(approximate="tanh"), nn.Linear(width_out, width_out)]
    return nn.Sequential(*layers)
