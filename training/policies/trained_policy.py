"""A policy of action tokens with everything that is needed to use it: input transform, action codec, spec, history.

What SFT and reinforcement train: its model gives one categorical distribution a token, so that a sample has a
log-probability. The folder of a compact one holds the model as transformers writes it and `policy.json`.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from rehearsal.action_codec import ActionCodec
from rehearsal.errors import RehearsalError
from rehearsal.simulation import ObservationBatch
from rehearsal.transforms import InputTransform
from training.engine.precision import Precision, computing_in
from training.policies.compact import CompactPolicy
from training.policies.model_training import ModelTraining
from training.policies.policy import Decoding, Record, load_policy, read_record, write_record
from training.policies.token_distribution import decode, sample

if TYPE_CHECKING:
    from training.policies.openvla.model import OpenVLA

# A policy of a few megabytes needs no progress bar of its own beside that of the run.
transformers_logging.disable_progress_bar()


class TokenTransform(Protocol):
    """From observations to the model's inputs by name: images uint8 (B, ...), state float32 (B, S), text int64 (B, L).

    cameras: names in the model's order. side_px: of the pictures that a simulator shall draw.
    """

    @property
    def cameras(self) -> tuple[str, ...]: ...

    @property
    def side_px(self) -> int: ...

    @property
    def state_dim(self) -> int: ...

    def __call__(self, batch: ObservationBatch) -> dict[str, np.ndarray]: ...


class TokenRecord(Record, frozen=True):
    """What the records of all policies of action tokens share; a family states what its transform is."""

    transform: TokenTransform
    codec: ActionCodec


class PolicyRecord(TokenRecord, frozen=True, tag="compact"):
    """What `policy.json` of a compact policy holds."""

    transform: InputTransform


class TrainedPolicy:
    """A model and its record; `model(**inputs)` gives logits (B, K, A, bins)."""

    def __init__(self, model: "PreTrainedModel | OpenVLA", record: TokenRecord) -> None:
        self.model = model
        self.record = record
        self.precision: Precision = "float32"

    @property
    def transform(self) -> TokenTransform:
        return self.record.transform

    @property
    def codec(self) -> ActionCodec:
        return self.record.codec

    @property
    def cameras(self) -> tuple[str, ...]:
        return self.transform.cameras

    @property
    def side_px(self) -> int:
        return self.transform.side_px

    @property
    def state_dim(self) -> int:
        return self.transform.state_dim

    @property
    def chunk_steps(self) -> int:
        return self.codec.chunk_steps

    def logits(self, inputs: Mapping[str, np.ndarray]) -> Tensor:
        """Returns float32 (B, K, A, bins) without a gradient, on the model's device."""
        with torch.inference_mode(), computing_in(self.precision, self.model):
            return self.model(**to_tensors(inputs, self.model.device))

    def token_logits(self, inputs: dict[str, Tensor], tokens: Tensor) -> Tensor:
        """Returns float32 (B, K, A, bins), with a gradient, that the given tokens (B, K, A) are scored by."""
        return self.model(**inputs)

    def duplicate(self) -> Self:
        """Returns a policy of its own with the same weights."""
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model)
        return other

    def check_reinforceable(self, folder: Path) -> None:
        """Raises RehearsalError when the policy, read from `folder`, has no probabilities to raise."""

    def begin_training(self, options: ModelTraining) -> None:
        """Makes the model ready to be trained; raises RehearsalError for what its family does not have."""
        if options != ModelTraining():
            raise RehearsalError(
                f"{type(self.model).__name__} is trained whole and as it is: leave out lora, freeze_vision, "
                "gradient_checkpointing and mixed_precision"
            )

    def compute_in(self, precision: Precision) -> None:
        """Sets what passes compute in, whatever the weights are; passes that learn follow their engine."""
        self.precision = precision

    def sample(
        self, inputs: Mapping[str, np.ndarray], temperature: float, uniform: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns tokens int64 (B, K, A) and their log-probabilities float32, from uniform numbers in [0, 1)."""
        tokens, log_probs = sample(self.logits(inputs), temperature, torch.from_numpy(uniform).to(self.model.device))
        return tokens.cpu().numpy(), log_probs.cpu().numpy()

    def actions(self, tokens: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Returns actions float32 (B, T, A), within the spec's bounds, of tokens (B, K, A) and raw state (B, S)."""
        return self.record.action_spec.clip(self.codec.decode(tokens, state))

    def act(self, batch: ObservationBatch, decoding: Decoding = "argmax") -> np.ndarray:
        """Returns the greedy actions float32 (B, T, A)."""
        tokens = decode(self.logits(self.transform(batch)), decoding).cpu().numpy()
        return self.actions(tokens, batch.state)

    def to(self, device: str) -> None:
        self.model.to(device)

    def reset(self) -> None:
        """Nothing is kept between calls."""

    def save(self, folder: Path) -> None:
        """Writes the folder; a reader never sees half of `policy.json`, which is written last."""
        self.model.save_pretrained(folder)
        write_record(folder, self.record)


def load_compact(folder: Path) -> TrainedPolicy:
    """Reads a compact policy's folder."""
    record = read_record(folder, PolicyRecord)
    model = CompactPolicy.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    return TrainedPolicy(model.eval(), record)


def load_token_policy(folder: Path) -> TrainedPolicy:
    """Reads a policy of action tokens; raises RehearsalError for one of another kind."""
    policy = load_policy(folder)
    if not isinstance(policy, TrainedPolicy):
        raise RehearsalError(
            f"{folder} holds a {type(policy).__name__}, which has no action tokens: it can be evaluated and served, "
            "not sampled or reinforced"
        )
    return policy


def to_tensors(inputs: Mapping[str, np.ndarray], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Returns tensors that share memory with the arrays on a CPU."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)).to(device) for name, array in inputs.items()}
