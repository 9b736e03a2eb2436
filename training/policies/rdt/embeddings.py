"""What RDT-1B is conditioned on: T5 tokens of the instruction and SigLIP tokens of the pictures.

Both encoders are read from local folders and stay as they are. Language tokens can also come from a file, made once
on a machine that holds T5-XXL: a robot has a few instructions. Pictures are padded to squares with the encoder's mean
colour; their order is external, right wrist, left wrist at t-1, then at t (thu-ml/RoboticsDiffusionTransformer,
scripts/agilex_model.py). A camera that a robot lacks shows the mean colour alone.

A policy is asked once a chunk, so the pictures of one control step earlier are not at hand; those of now, 40 ms later
at the published 25 Hz, stand in for them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel, SiglipVisionModel, T5EncoderModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.utils import logging as transformers_logging

from rehearsal.errors import RehearsalError, unknown_choice
from rehearsal.simulation import ObservationBatch
from training.policies.rdt.checkpoint import read_weights
from training.policies.rdt.config import RDTConfig

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
CAMERA_SLOTS = 3


class EncoderOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="encoders"):
    """external, right, left: the cameras in RDT's three places; None: the robot has none there.

    language: a T5 folder, or a file of embeddings. vision: a SigLIP folder. side_px: of the squares that a simulator
    draws; any size is scaled to the encoder's. Paths are absolute, or start at the policy's folder.
    """

    external: str | None
    right: str | None
    left: str | None
    language: str
    vision: str
    side_px: int = 384

    def __post_init__(self) -> None:
        if not self.cameras:
            raise ValueError("one of external, right and left must be a camera")

    @property
    def places(self) -> tuple[str | None, ...]:
        return (self.external, self.right, self.left)

    @property
    def cameras(self) -> tuple[str, ...]:
        return tuple(name for name in self.places if name is not None)


class Language(Protocol):
    def tokens(self, instruction: str) -> Tensor:
        """Returns (L, D), float32 or shorter, of an instruction."""
        ...

    def to(self, device: str) -> None: ...


class T5Language:
    """T5's last hidden states; an instruction is encoded once."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        check_folder(folder, "T5", ("tokenizer.json", "spiece.model"))
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model = load_encoder(T5EncoderModel, folder, dtype)
        self._known: dict[str, Tensor] = {}

    def tokens(self, instruction: str) -> Tensor:
        if instruction not in self._known:
            words = self.tokenizer(instruction, return_tensors="pt")["input_ids"].to(self.model.device)
            with torch.inference_mode():
                self._known[instruction] = self.model(words).last_hidden_state[0].cpu()
        return self._known[instruction]

    def to(self, device: str) -> None:
        self.model.to(device)


class StoredLanguage:
    """Embeddings (L, D) from a file: a .safetensors one by instruction, or the .pt of one instruction upstream."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise RehearsalError(f"no language embeddings {path}; give a .safetensors or .pt file, or a T5 folder")
        stored: dict[str, Any] = read_weights(path)
        if isinstance(stored.get("instruction"), str) and "embeddings" in stored:
            stored = {stored["instruction"]: stored["embeddings"]}
        bad = [name for name, value in stored.items() if not isinstance(value, Tensor) or value.dim() not in (2, 3)]
        if bad or not stored:
            raise RehearsalError(f"{path} must hold a tensor (tokens, width) for each instruction; bad: {bad}")
        self._known = {plain(name): value.flatten(0, -2) for name, value in stored.items()}

    def tokens(self, instruction: str) -> Tensor:
        if plain(instruction) not in self._known:
            raise unknown_choice("instruction without stored embeddings:", instruction, self._known)
        return self._known[plain(instruction)]

    def to(self, device: str) -> None:
        """The embeddings are small; each batch moves its own."""


class SiglipImages:
    """SigLIP's patch tokens of padded pictures."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        check_folder(folder, "SigLIP", ("preprocessor_config.json",))
        self.processor = SiglipImageProcessorPil.from_pretrained(folder, local_files_only=True)
        self.model = load_encoder(SiglipVisionModel, folder, dtype)
        self.background = tuple(int(255 * value) for value in self.processor.image_mean)

    @property
    def patches(self) -> int:
        return (self.model.config.image_size // self.model.config.patch_size) ** 2

    def tokens(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """Returns (N, patches, D) of N pictures uint8 (H, W, 3)."""
        squares = [pad_to_square(picture, self.background) for picture in pictures]
        pixels = self.processor(squares, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            return self.model(pixels.to(self.model.device, self.model.dtype)).last_hidden_state

    def blank(self) -> np.ndarray:
        """Returns the picture of a camera that is not there."""
        side = self.model.config.image_size
        return np.full((side, side, 3), self.background, dtype=np.uint8)


class EncoderConditions(nn.Module):
    """Language and image tokens of observations, by frozen encoders; it has no weights of its own to keep."""

    def __init__(self, options: EncoderOptions, config: RDTConfig, folder: Path, dtype: torch.dtype) -> None:
        """folder: where relative paths start. Raises RehearsalError when the encoders are not those of the config."""
        super().__init__()
        self.options = options
        self.config = config
        source = folder / options.language
        self.language: Language = T5Language(source, dtype) if source.is_dir() else StoredLanguage(source)
        self.vision = SiglipImages(folder / options.vision, dtype)
        self.times, rest = divmod(config.img_cond_len, CAMERA_SLOTS * self.vision.patches)
        width = self.vision.model.config.hidden_size
        if rest or not self.times or width != config.img_token_dim:
            raise RehearsalError(
                f"{folder / options.vision} gives {self.vision.patches} tokens of {width} values a picture; the "
                f"model takes {config.img_cond_len} of {config.img_token_dim} from {CAMERA_SLOTS} cameras, once or more"
            )
        self._blank: Tensor | None = None

    @property
    def cameras(self) -> tuple[str, ...]:
        return self.options.cameras

    @property
    def side_px(self) -> int:
        return self.options.side_px

    def to_device(self, device: str) -> None:
        self.language.to(device)
        self.vision.model.to(device)

    def forward(self, batch: ObservationBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Returns language tokens (B, L, D), their mask bool (B, L) and image tokens (B, img_cond_len, D)."""
        return (*self._language(batch.instructions), self._images(batch))

    def _language(self, instructions: list[str]) -> tuple[Tensor, Tensor]:
        device, longest = self.vision.model.device, self.config.max_lang_cond_len
        rows = [self.language.tokens(instruction)[:longest] for instruction in instructions]
        if wrong := {row.shape[1] for row in rows} - {self.config.lang_token_dim}:
            raise RehearsalError(
                f"language tokens have {wrong.pop()} values; the model takes {self.config.lang_token_dim}"
            )
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return tokens.to(device, self.vision.model.dtype), mask.to(device)

    def _images(self, batch: ObservationBatch) -> Tensor:
        if missing := [name for name in self.cameras if name not in batch.images]:
            raise RehearsalError(f"the policy looks through camera {missing[0]!r}; got: {', '.join(batch.images)}")
        if self._blank is None:
            self._blank = self.vision.tokens([self.vision.blank()])
        blank = self._blank.to(self.vision.model.device).expand(len(batch), -1, -1)
        now = torch.cat(
            [blank if name is None else self.vision.tokens(list(batch.images[name])) for name in self.options.places],
            dim=1,
        )
        return now.repeat(1, self.times, 1)


def pad_to_square(picture: np.ndarray, colour: tuple[int, ...]) -> Image.Image:
    """Returns the picture uint8 (H, W, 3) in the middle of the smallest square around it; an odd row goes below."""
    height, width = picture.shape[:2]
    side = max(height, width)
    square = Image.new("RGB", (side, side), colour)
    square.paste(Image.fromarray(picture), ((side - width) // 2, (side - height) // 2))
    return square


def check_folder(folder: Path, what: str, beside: tuple[str, ...]) -> None:
    """Raises RehearsalError when the folder of an encoder lacks its config, its weights, or one of `beside`."""
    for needed in (("config.json",), WEIGHTS, beside):
        if not any((folder / name).is_file() for name in needed):
            raise RehearsalError(f"{folder} is no {what} folder: it lacks {' or '.join(needed)}")


def load_encoder(kind: type[PreTrainedModel], folder: Path, dtype: torch.dtype) -> Any:
    """Reads an encoder from its folder; raises RehearsalError when a weight of it is not there."""
    verbosity = transformers_logging.get_verbosity()
    # The published folders hold a decoder or a text tower too, of which transformers would list every weight.
    transformers_logging.set_verbosity_error()
    try:
        model, report = kind.from_pretrained(
            folder, local_files_only=True, dtype=dtype, output_loading_info=True
        )
    finally:
        transformers_logging.set_verbosity(verbosity)
    if missing := sorted(report["missing_keys"]):
        raise RehearsalError(f"{folder} is no {kind.__name__}: it lacks {len(missing)} weights such as {missing[0]}")
    return model.eval()


def plain(instruction: str) -> str:
    """Returns an instruction without what does not change its meaning: case, spaces around, the full stop."""
    return " ".join(instruction.lower().split()).rstrip(".")
