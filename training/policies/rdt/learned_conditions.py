"""Condition tokens of the small model: a picture encoder and word embeddings that are trained with the denoiser.

They stand where RDT-1B has SigLIP and T5: the pictures go through the compact policy's camera encoder, the instruction
through hashed words, and the same denoiser attends to both.
"""

from typing import Annotated, cast

import msgspec
import numpy as np
import torch
from msgspec import Meta
from torch import Tensor, nn

from rehearsal.simulation import ObservationBatch
from rehearsal.transforms import InputTransform
from training.policies.compact import CameraEncoder, CompactPolicyConfig

Count = Annotated[int, Meta(ge=1)]


class LearnedOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="learned"):
    """transform: cameras, picture size and words. width: of every token. camera_tokens, keypoints: of each camera."""

    transform: InputTransform
    width: Count = 128
    camera_tokens: Count = 8
    keypoints: Count = 32

    @property
    def image_tokens(self) -> int:
        return len(self.transform.cameras) * self.camera_tokens


class LearnedConditions(nn.Module):
    def __init__(self, options: LearnedOptions) -> None:
        super().__init__()
        self.options = options
        size = CompactPolicyConfig(
            side_px=options.transform.side_px,
            width=options.width,
            camera_tokens=options.camera_tokens,
            keypoints=options.keypoints,
        )
        self.encoders = nn.ModuleList(CameraEncoder(size) for _ in options.transform.cameras)
        self.words = nn.Embedding(options.transform.text_buckets, options.width, padding_idx=0)
        for encoder in self.encoders:
            # torch declares no overload of `to` for the format alone.
            encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def new(cls, options: LearnedOptions, seed: int) -> "LearnedConditions":
        """Returns fresh weights, the same for the same seed; the global generator is left alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            conditions = cls(options)
            for encoder in conditions.encoders:
                cast(CameraEncoder, encoder).reset()
        return conditions

    @property
    def cameras(self) -> tuple[str, ...]:
        return self.options.transform.cameras

    @property
    def side_px(self) -> int:
        return self.options.transform.side_px

    def to_device(self, device: str) -> None:
        self.to(device)

    def inputs(self, batch: ObservationBatch) -> dict[str, np.ndarray]:
        """Returns images uint8 (B, cameras, side, side, 3) and text int64 (B, L)."""
        transform = self.options.transform
        return {"images": transform.images(batch), "text": transform.text(batch.instructions)}

    def tokens(self, images: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns language tokens (B, L, D), their mask bool (B, L) and image tokens (B, cameras x tokens, D)."""
        pictures = images.permute(1, 0, 4, 2, 3).to(torch.float32) / 255.0
        seen = [encoder(pictures[number]) for number, encoder in enumerate(self.encoders)]
        valid = text > 0
        # An instruction without a word keeps one token, of zeros: attention to nothing is not defined.
        valid[:, 0] = True
        return self.words(text), valid, torch.cat(seen, dim=1)

    def forward(self, batch: ObservationBatch) -> tuple[Tensor, Tensor, Tensor]:
        device = self.words.weight.device
        inputs = {name: torch.from_numpy(array).to(device) for name, array in self.inputs(batch).items()}
        with torch.inference_mode():
            return self.tokens(**inputs)
