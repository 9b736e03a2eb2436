"""What `config.json` of an RDT checkpoint says, in the published layout and under its names.

A file may hold more, for training: what is not named here is not read.
"""

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=1)]
PositionEmbedding = tuple[str, int | tuple[int, ...]]
ADAPTOR = re.compile(r"linear|mlp([1-9]\d*)x_gelu")


class _Config(msgspec.Struct, frozen=True, kw_only=True):
    pass


class TransformerConfig(_Config, frozen=True):
    """hidden_size: width D of every token. depth: blocks. num_heads: of each attention."""

    hidden_size: Count = 2048
    depth: Count = 28
    num_heads: Count = 32
    cond_pos_embed_type: Literal["multimodal"] = "multimodal"

    def __post_init__(self) -> None:
        if self.hidden_size % (4 * self.num_heads):
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of 4 x {self.num_heads} heads")


class NoiseConfig(_Config, frozen=True):
    """The diffusion process: DDPM in training, DPM-Solver++ in sampling, both on the same schedule."""

    type: Literal["ddpm"] = "ddpm"
    num_train_timesteps: Count = 1000
    num_inference_timesteps: Count = 5
    beta_schedule: str = "squaredcos_cap_v2"
    prediction_type: Literal["sample", "epsilon"] = "sample"
    clip_sample: bool = False


class ModelConfig(_Config, frozen=True):
    """An adaptor is `linear` or `mlpNx_gelu`: N linear layers with a GELU between."""

    lang_adaptor: str = "mlp2x_gelu"
    img_adaptor: str = "mlp2x_gelu"
    state_adaptor: str = "mlp3x_gelu"
    rdt: TransformerConfig = TransformerConfig()
    noise_scheduler: NoiseConfig = NoiseConfig()

    def __post_init__(self) -> None:
        for adaptor in (self.lang_adaptor, self.img_adaptor, self.state_adaptor):
            if not ADAPTOR.fullmatch(adaptor):
                raise ValueError(f"unknown adaptor {adaptor!r}; valid: linear, mlp2x_gelu, mlp3x_gelu, ...")


class RDTConfig(_Config, frozen=True):
    """The defaults are those of RDT-1B.

    action_dim, state_token_dim: U, slots of the unified action space. pred_horizon: H, actions a sample.
    lang_token_dim, img_token_dim: of the encoders' tokens. max_lang_cond_len, img_cond_len: most language tokens, and
    the number of image tokens. *_pos_embed_config: what the learned position embeddings of the condition tokens begin
    with: modality and grid; a negative size has no position of its own. None: their place in the row.
    """

    action_dim: Count = 128
    pred_horizon: Count = 64
    lang_token_dim: Count = 4096
    img_token_dim: Count = 1152
    state_token_dim: Count = 128
    max_lang_cond_len: Count = 1024
    img_cond_len: Count = 4374
    lang_pos_embed_config: tuple[PositionEmbedding, ...] | None = None
    img_pos_embed_config: tuple[PositionEmbedding, ...] | None = None
    config: ModelConfig = ModelConfig()

    def __post_init__(self) -> None:
        if self.action_dim != self.state_token_dim:
            raise ValueError(
                f"action_dim {self.action_dim} and state_token_dim {self.state_token_dim} must be equal: states and "
                "actions share one adaptor"
            )
