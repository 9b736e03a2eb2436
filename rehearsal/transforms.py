"""From an observation to a model's input: the one pipeline that training, server and export share.

Picture: the largest centred square, then area-averaged to side x side pixels, uint8. State: (state - mean) / std.
Instruction: hashed words and word pairs (Joulin et al. 2017), so that any text has a defined input and no
vocabulary file is needed.
"""

import itertools
import re
import zlib

import msgspec
import numpy as np

from rehearsal.errors import RehearsalError
from rehearsal.messages import Observation
from rehearsal.simulation import ObservationBatch


class InputTransform(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """cameras: names in the model's order. side_px: of its square pictures. state_mean, state_std: (S,).

    text_buckets: number of hash buckets; 0 is padding. text_length: ids an instruction, padded or cut.
    """

    cameras: tuple[str, ...]
    side_px: int
    state_mean: tuple[float, ...]
    state_std: tuple[float, ...]
    text_buckets: int
    text_length: int

    def __post_init__(self) -> None:
        if len(self.state_mean) != len(self.state_std):
            raise ValueError("state_mean and state_std need one entry a state value")
        if any(not std > 0 for std in self.state_std):
            raise ValueError("state_std must be positive: give a state value that never changes a floor")
        if self.text_buckets < 2 or self.text_length < 1 or self.side_px < 1:
            raise ValueError(
                f"side_px {self.side_px}, text_buckets {self.text_buckets} and text_length {self.text_length} "
                "must be at least 1, 2 and 1"
            )

    @property
    def state_dim(self) -> int:
        return len(self.state_mean)

    def images(self, images: ObservationBatch) -> np.ndarray:
        """Returns uint8 (N, cameras, side, side, 3)."""
        missing = [name for name in self.cameras if name not in images.images]
        if missing:
            raise RehearsalError(f"the policy looks through camera {missing[0]!r}; got: {', '.join(images.images)}")
        return np.stack([square(images.images[name], self.side_px) for name in self.cameras], axis=1)

    def state(self, state: np.ndarray) -> np.ndarray:
        """Returns float32 (N, S), normalised."""
        if state.shape[-1] != len(self.state_mean):
            raise RehearsalError(f"the policy takes a state of {len(self.state_mean)} values, got {state.shape[-1]}")
        return ((state - np.asarray(self.state_mean)) / np.asarray(self.state_std)).astype(np.float32)

    def text(self, instructions: list[str]) -> np.ndarray:
        """Returns int64 (N, text_length)."""
        return np.stack([hashed_words(text, self.text_buckets, self.text_length) for text in instructions])

    def __call__(self, batch: ObservationBatch) -> dict[str, np.ndarray]:
        """Returns the model's inputs by name: images, state, text."""
        return {
            "images": self.images(batch),
            "state": self.state(batch.state),
            "text": self.text(batch.instructions),
        }


def batch(observations: list[Observation]) -> ObservationBatch:
    """Stacks observations of equal picture sizes."""
    return ObservationBatch(
        images={name: np.stack([o.images[name] for o in observations]) for name in observations[0].images},
        state=np.stack([o.state for o in observations]).astype(np.float32),
        instructions=[o.instruction for o in observations],
    )


def square(images: np.ndarray, side_px: int) -> np.ndarray:
    """Returns the centred square of images (N, H, W, 3) uint8, area-averaged to (N, side, side, 3)."""
    height, width = images.shape[1:3]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    images = images[:, top : top + edge, left : left + edge]
    if edge == side_px:
        return images
    rows = _area_weights(edge, side_px)
    averaged = np.einsum("ih,nhwc,jw->nijc", rows, images.astype(np.float32), rows, optimize=True)
    return np.floor(averaged + 0.5).clip(0, 255).astype(np.uint8)


def _area_weights(source: int, target: int) -> np.ndarray:
    """Returns float32 (target, source): row i holds the share of each source pixel in target pixel i."""
    edges = np.arange(target + 1) * (source / target)
    pixels = np.arange(source)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (overlap.clip(min=0) * (target / source)).astype(np.float32)


def hashed_words(instruction: str, buckets: int, length: int) -> np.ndarray:
    """Returns int64 (length,): ids 1 to buckets - 1 of words and of neighbouring word pairs, then zeros."""
    words = re.findall(r"[a-z0-9]+", instruction.lower())
    terms = words + [f"{first} {second}" for first, second in itertools.pairwise(words)]
    ids = [1 + zlib.crc32(term.encode()) % (buckets - 1) for term in terms][:length]
    return np.array(ids + [0] * (length - len(ids)), dtype=np.int64)
