"""A policy with everything that is needed to use it: input transform, action codec, spec, and where it comes from.

A folder holds the model (`config.json`, `model.safetensors`, as transformers writes them) and `policy.json`.
"""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor
from transformers.utils import logging as transformers_logging

from rehearsal.action_codec import ActionCodec
from rehearsal.errors import RehearsalError
from rehearsal.simulation import ObservationBatch
from rehearsal.spec import ActionSpec
from rehearsal.transforms import InputTransform
from training.policies.compact import CompactPolicy
from training.policies.token_distribution import Decoding, decode

RECORD = "policy.json"
RUN_POLICY = "policy"
"""Name of the policy's folder within a run's folder."""


# A policy of a few megabytes needs no progress bar of its own beside that of the run.
transformers_logging.disable_progress_bar()


class PolicyRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `policy.json` holds. `history`: one record a training run, the first one first."""

    cell: str
    task: str
    action_spec: ActionSpec
    transform: InputTransform
    codec: ActionCodec
    history: tuple[dict[str, Any], ...] = ()


class TrainedPolicy:
    """A model and its record; `model(**inputs)` gives logits (B, K, A, bins)."""

    def __init__(self, model: CompactPolicy, record: PolicyRecord) -> None:
        self.model = model
        self.record = record

    def logits(self, inputs: dict[str, np.ndarray]) -> Tensor:
        """Returns float32 (B, K, A, bins) without a gradient, on the model's device."""
        with torch.inference_mode():
            return self.model(**to_tensors(inputs, self.model.device))

    def actions(self, tokens: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Returns actions float32 (B, T, A), within the spec's bounds, of tokens (B, K, A) and raw state (B, S)."""
        return self.record.action_spec.clip(self.record.codec.decode(tokens, state))

    def act(self, batch: ObservationBatch, decoding: Decoding = "argmax") -> np.ndarray:
        """Returns the greedy actions float32 (B, T, A)."""
        tokens = decode(self.logits(self.record.transform(batch)), decoding).cpu().numpy()
        return self.actions(tokens, batch.state)

    def save(self, folder: Path) -> None:
        """Writes the folder; a reader never sees half of `policy.json`, which is written last."""
        self.model.save_pretrained(folder)
        (folder / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(self.record), indent=2) + b"\n")


def load_policy(folder: Path) -> TrainedPolicy:
    """Reads a folder that `save` wrote, or the policy of a run's folder; raises RehearsalError when it is neither."""
    if not (folder / RECORD).is_file() and (folder / RUN_POLICY / RECORD).is_file():
        folder = folder / RUN_POLICY
    path = folder / RECORD
    if not path.is_file():
        raise RehearsalError(f"no trained policy in {folder}: {RECORD} is missing; make one: python training/sft.py")
    try:
        record = msgspec.json.decode(path.read_bytes(), type=PolicyRecord)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise RehearsalError(f"{path}: {error}; train the policy again") from None
    return TrainedPolicy(CompactPolicy.from_pretrained(folder, local_files_only=True).eval(), record)


def to_tensors(inputs: dict[str, np.ndarray], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Returns tensors that share memory with the arrays on a CPU."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)).to(device) for name, array in inputs.items()}
