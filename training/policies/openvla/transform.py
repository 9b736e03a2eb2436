"""From observations to OpenVLA's inputs; the same in training, evaluation and server."""

from pathlib import Path

import msgspec
import numpy as np

from rehearsal.errors import RehearsalError
from rehearsal.simulation import ObservationBatch
from rehearsal.transforms import square
from training.policies.openvla.image_pipeline import prepare
from training.policies.openvla.prompt import prompt_ids, read_tokenizer
from training.policies.openvla.statistics import StateBounds


class OpenVLATransform(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """cameras: names in the model's order. side_px: of the square pictures that a simulator draws.

    input_px: of the model's pictures. mirror: pictures left to right (LIBERO). resize_first: Pillow's bicubic
    first (ALOHA). squash: a picture that is not square is squashed whole (published ALOHA, RoboTwin), in place of
    being cut to its centred square. state: what normalises the state, None where the model sees none; state_values:
    how many it has. prompt_length: tokens, padding included. tokenizer: folder of the tokeniser.
    """

    cameras: tuple[str, ...]
    side_px: int
    input_px: int
    mirror: bool
    resize_first: bool
    squash: bool
    state: StateBounds | None
    state_values: int
    prompt_length: int
    tokenizer: str = ""

    @property
    def state_dim(self) -> int:
        return self.state_values

    def at(self, folder: Path) -> "OpenVLATransform":
        """Returns this transform with the tokeniser of `folder`."""
        return msgspec.structs.replace(self, tokenizer=str(folder))

    def __call__(self, batch: ObservationBatch) -> dict[str, np.ndarray]:
        """Returns images uint8 (N, cameras, px, px, 3), state float32 (N, S), text int64 (N, L)."""
        return {
            "images": self._images(batch),
            "state": self._state(batch.state),
            "text": prompt_ids(read_tokenizer(Path(self.tokenizer)), batch.instructions, self.prompt_length),
        }

    def _images(self, batch: ObservationBatch) -> np.ndarray:
        if missing := [name for name in self.cameras if name not in batch.images]:
            raise RehearsalError(f"the policy looks through camera {missing[0]!r}; got: {', '.join(batch.images)}")
        pictures = [batch.images[name] for name in self.cameras]
        if not self.squash:
            pictures = [square(images, self.side_px) for images in pictures]
        prepared = [
            prepare(images, self.input_px, mirror=self.mirror, resize_first=self.resize_first) for images in pictures
        ]
        return np.stack(prepared, axis=1)

    def _state(self, state: np.ndarray) -> np.ndarray:
        if state.shape[-1] != self.state_values:
            raise RehearsalError(f"the policy takes a state of {self.state_values} values, got {state.shape[-1]}")
        if self.state is None:
            return np.zeros((len(state), 0), np.float32)
        return self.state.normalise(state)
