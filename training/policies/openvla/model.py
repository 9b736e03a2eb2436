"""OpenVLA and OpenVLA-OFT on the modules of transformers.

The language model sees one sequence: BOS, the patches of all pictures, the state's token where there is one, the
prompt, one empty place for every action token of the chunk, the stop token. OpenVLA-OFT (Kim et al. 2025) lets every
place see every other and so decodes the whole chunk in one pass; OpenVLA (Kim et al. 2024) is causal and decodes one
token after another, which `autoregressive.py` does with this same class.

Prompts of different lengths share a batch: padding stands at the far right, behind the stop token, and is seen by none.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from rehearsal.errors import RehearsalError
from training.policies.openvla.config import (
    ACTION_BINS,
    FIRST_ACTION_ID,
    LAST_ACTION_ID,
    PAD_ID,
    STOP_ID,
    OpenVLASizes,
    read_object,
)
from training.policies.openvla.heads import L1Head, ProprioProjector
from training.policies.openvla.options import Attention
from training.policies.openvla.vision import Projector, VisionBackbone

# Means and deviations of pixels in [0, 1]: DINO's as published processors hold them, rounded to bfloat16, then
# SigLIP's. A checkpoint's preprocessor_config.json overrides them.
DINO_PIXELS = ((0.484375, 0.455078125, 0.40625), (0.228515625, 0.2236328125, 0.224609375))
SIGLIP_PIXELS = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
Pixels = tuple[Sequence[float], Sequence[float]]


class OpenVLA(nn.Module):
    """forward(images, state, text) -> logits float32 (B, T, A, 256); bin b is the token of id 31999 - b.

    unused: published tensors that no output depends on, kept for saving. mixed_precision: compute in bfloat16 whatever
    the weights are. proprio, l1_head: None where a checkpoint has none. proprio_inside: its checkpoint keeps the
    state's projector in the model's file, as SimpleVLA-RL does, and not beside it.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        sizes: OpenVLASizes,
        *,
        chunk_steps: int,
        action_dim: int,
        attention: Attention = "bidirectional",
        state_dim: int = 0,
        l1_head: bool = False,
    ) -> None:
        """state_dim: values of the state's projector, 0 for none. l1_head: whether there is one."""
        super().__init__()
        self.sizes = sizes
        self.chunk_steps, self.action_dim = chunk_steps, action_dim
        self.attention: Attention = attention
        self.vision = VisionBackbone(sizes)
        self.projector = Projector(sizes)
        self.language_model = LlamaForCausalLM(sizes.llama)
        hidden = sizes.llama.hidden_size
        self.proprio = ProprioProjector(state_dim, hidden) if state_dim else None
        self.l1_head = L1Head(hidden, action_dim) if l1_head else None
        self.unused: dict[str, Tensor] = {}
        self.mixed_precision = False
        self.proprio_inside = False
        self.register_buffer("pixel_mean", torch.zeros(6), persistent=False)
        self.register_buffer("pixel_std", torch.ones(6), persistent=False)
        self.set_pixels(DINO_PIXELS, SIGLIP_PIXELS)

    def set_pixels(self, dino: Pixels, siglip: Pixels) -> None:
        """Sets mean and standard deviation of the pixels of the two backbones."""
        device = self.projector.fc1.weight.device
        device = torch.device("cpu") if device.type == "meta" else device
        self.pixel_mean = torch.tensor([*dino[0], *siglip[0]], device=device)
        self.pixel_std = torch.tensor([*dino[1], *siglip[1]], device=device)

    @property
    def device(self) -> torch.device:
        return self.projector.fc1.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.projector.fc1.weight.dtype

    @property
    def tokens(self) -> int:
        """Action tokens of a chunk."""
        return self.chunk_steps * self.action_dim

    @property
    def feature_dim(self) -> int:
        return self.sizes.llama.hidden_size

    def forward(self, images: Tensor, state: Tensor, text: Tensor) -> Tensor:
        """images: uint8 (B, n, px, px, 3), resized and cropped. state: float32 (B, S), normalised; ignored without a
        projector. text: int64 (B, L), prompts from BOS to the empty token, padded on the right with 32000.
        """
        return self.action_logits(self.action_states(self.pixel_values(images), state, text))

    def features(self, images: Tensor, state: Tensor, text: Tensor) -> Tensor:
        """Returns float32 (B, hidden), the mean over the chunk's hidden states: what a critic sees."""
        return self.action_states(self.pixel_values(images), state, text).float().mean(1)

    def regressed(self, images: Tensor, state: Tensor, text: Tensor) -> Tensor:
        """Returns the L1 head's actions float32 (B, T, A) in [-1, 1]."""
        assert self.l1_head is not None
        return self.l1_head(self.action_states(self.pixel_values(images), state, text)).float()

    def pixel_values(self, images: Tensor) -> Tensor:
        """Returns (B, 6 n, px, px): each picture of uint8 (B, n, px, px, 3) normalised for DINO, then for SigLIP."""
        pixels = images.permute(0, 1, 4, 2, 3).to(torch.float32) / 255.0
        both = torch.cat([pixels, pixels], dim=2)
        normal = (both - self.pixel_mean[:, None, None]) / self.pixel_std[:, None, None]
        return normal.flatten(1, 2).to(self.dtype)

    def action_states(self, pixel_values: Tensor, state: Tensor, text: Tensor) -> Tensor:
        """Returns the hidden states (B, T A, hidden) that the chunk's logits are made of."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed_precision):
            embeddings, seen, first = self.sequence(pixel_values, state, text)
            hidden = self.hidden_states(embeddings, seen)
        places = first[:, None] + torch.arange(self.tokens, device=hidden.device)
        return hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[-1]))

    def action_logits(self, states: Tensor) -> Tensor:
        """Returns float32 (B, T, A, 256) of hidden states (B, T A, hidden); only the action words are multiplied."""
        words = self.language_model.lm_head.weight[FIRST_ACTION_ID : LAST_ACTION_ID + 1]
        logits = nn.functional.linear(states, words).float().flip(-1)
        return logits.unflatten(1, (self.chunk_steps, self.action_dim))

    def context(self, pixel_values: Tensor, state: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Returns embeddings (B, S, hidden) of BOS, patches, state and prompt, and their lengths (B,).

        Rows are filled on the left; what lies beyond a row's length is padding.
        """
        words = self.language_model.model.embed_tokens(text)
        tokens = [words[:, :1], self.projector(self.vision(pixel_values))]
        if self.proprio is not None:
            tokens.append(self.proprio(state.to(words.dtype)))
        tokens.append(words[:, 1:])
        prompt = (text != PAD_ID).sum(1)
        embeddings = torch.cat(tokens, dim=1)
        return embeddings, embeddings.shape[1] - text.shape[1] + prompt

    def sequence(self, pixel_values: Tensor, state: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns embeddings (B, S, hidden) with the chunk's places, bool (B, S) what is no padding, and (B,) the
        place whose hidden state gives the first action token.
        """
        context, lengths = self.context(pixel_values, state, text)
        batch, width, hidden = context.shape
        place = torch.arange(width + self.tokens + 1, device=context.device)[None]
        stop = lengths[:, None] + self.tokens
        embeddings = torch.cat([context, context.new_zeros(batch, self.tokens + 1, hidden)], dim=1)
        # Where a row's prompt is shorter its padding comes first: it gives way to the chunk's empty places.
        embeddings = embeddings.masked_fill((place >= lengths[:, None])[..., None], 0.0)
        ending = self.language_model.model.embed_tokens.weight[STOP_ID]
        embeddings = torch.where((place == stop)[..., None], ending, embeddings)
        return embeddings, place <= stop, lengths - 1

    def hidden_states(self, embeddings: Tensor, seen: Tensor) -> Tensor:
        """Returns the final hidden states (B, S, hidden); seen: bool (B, S), the places that any other may look at."""
        allowed = seen[:, None, None, :]
        length = embeddings.shape[1]
        if self.attention == "causal":
            order = torch.arange(length, device=embeddings.device)
            allowed = allowed & (order[None, :] <= order[:, None])
        else:
            allowed = allowed.expand(-1, 1, length, -1)
        positions = torch.arange(length, device=embeddings.device)[None]
        # A four-dimensional mask is used as it is: transformers adds no causal one to it.
        outputs = self.language_model.model(
            inputs_embeds=embeddings, attention_mask=allowed, position_ids=positions, use_cache=False
        )
        return outputs.last_hidden_state

    def save_pretrained(self, folder: Path) -> None:
        """Writes the checkpoint in the published layout, adapters merged."""
        from training.policies.openvla.checkpoint import save_openvla
        from training.policies.openvla.lora import merged

        save_openvla(merged(self), folder)

    def add_proprioception(self, state_dim: int) -> None:
        """Gives the model a new projector of a state of so many values, the same each time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            projector = ProprioProjector(state_dim, self.sizes.llama.hidden_size)
        self.proprio = projector.to(self.device, self.dtype)

    def freeze_vision(self) -> None:
        """Keeps the vision backbones as they are."""
        self.vision.requires_grad_(False)

    def checkpoint_gradients(self, on: bool = True) -> None:
        """Trades time for memory: the language model's activations are computed again in the backward pass."""
        if on:
            self.language_model.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            self.language_model.gradient_checkpointing_disable()


def read_pixels(folder: Path) -> tuple[Pixels, Pixels]:
    """Returns mean and deviation of DINO's and SigLIP's pixels from a checkpoint's preprocessor_config.json."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return DINO_PIXELS, SIGLIP_PIXELS
    found = read_object(path)
    means, stds = found.get("means"), found.get("stds")
    if not means or not stds or len(means) != 2 or len(stds) != 2:
        raise RehearsalError(f"{path}: means and stds of two vision backbones are needed; copy the checkpoint again")
    return (means[0], stds[0]), (means[1], stds[1])


@contextmanager
def on_meta() -> Iterator[None]:
    """Modules made within have shapes but no memory, so that loading allocates the weights once."""
    with torch.device("meta"):
        yield


def bins_of(ids: Tensor) -> Tensor:
    """Returns the bins of vocabulary ids of action tokens; ids above and below belong to the outermost bins."""
    return (LAST_ACTION_ID - ids).clamp(0, ACTION_BINS - 1)
