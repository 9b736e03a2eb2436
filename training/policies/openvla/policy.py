"""An OpenVLA as a policy: published checkpoints adopted for a workplace, trained, saved in their own layout and served.

A policy's folder is a checkpoint's folder, loadable wherever published ones are, with `policy.json` beside.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rehearsal.action_codec import ActionCodec
from rehearsal.bundle import Decoding
from rehearsal.errors import RehearsalError
from rehearsal.simulation import ObservationBatch
from training.policies.model_training import ModelTraining
from training.policies.openvla.autoregressive import (
    action_words,
    decode_ids,
    most_likely,
    sampled,
    score_ids,
)
from training.policies.openvla.checkpoint import load_openvla_model, save_openvla
from training.policies.openvla.config import LAST_ACTION_ID
from training.policies.openvla.lora import add_lora, merged
from training.policies.openvla.model import OpenVLA
from training.policies.openvla.options import Attention, Head, Precision
from training.policies.openvla.statistics import write_statistics
from training.policies.openvla.transform import OpenVLATransform
from training.policies.policy import read_record, write_record
from training.policies.token_distribution import log_probs
from training.policies.trained_policy import TokenRecord, TrainedPolicy, to_tensors

log = logging.getLogger(__name__)

DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class OpenVLARecord(TokenRecord, frozen=True, tag="openvla"):
    """What `policy.json` holds. attention: bidirectional is OpenVLA-OFT's, causal OpenVLA's. weights: their type."""

    transform: OpenVLATransform
    attention: Attention
    head: Head
    weights: Precision


class OpenVLAPolicy(TrainedPolicy):
    """See TrainedPolicy; folder: where tokeniser and statistics are copied from when it is saved."""

    model: OpenVLA
    record: OpenVLARecord

    def __init__(
        self, model: OpenVLA, record: OpenVLARecord, folder: Path, statistics: dict[str, Any] | None = None
    ) -> None:
        """statistics: those to save; None: the ones of the folder."""
        super().__init__(model, record)
        self.folder = folder
        self.statistics = statistics

    @property
    def transform(self) -> OpenVLATransform:
        return self.record.transform.at(self.folder)

    @property
    def causal(self) -> bool:
        return self.record.attention == "causal"

    def logits(self, inputs: Mapping[str, np.ndarray]) -> Tensor:
        """Returns float32 (B, K, A, 256); of a causal model those of its own greedy tokens."""
        if not self.causal:
            return super().logits(inputs)
        with torch.inference_mode():
            _, logits = decode_ids(self.model, *self._decoding_inputs(inputs), most_likely)
        return self._by_token(action_words(logits))

    def token_logits(self, inputs: dict[str, Tensor], tokens: Tensor) -> Tensor:
        if not self.causal:
            return super().token_logits(inputs, tokens)
        ids = LAST_ACTION_ID - tokens.flatten(1)
        pixels = self.model.pixel_values(inputs["images"])
        return self._by_token(action_words(score_ids(self.model, pixels, inputs["state"], inputs["text"], ids)))

    def sample(
        self, inputs: Mapping[str, np.ndarray], temperature: float, uniform: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        if not self.causal:
            return super().sample(inputs, temperature, uniform)
        numbers = torch.from_numpy(uniform).to(self.model.device).flatten(1)
        with torch.inference_mode():
            ids, logits = decode_ids(self.model, *self._decoding_inputs(inputs), sampled(temperature, numbers))
        tokens = (LAST_ACTION_ID - ids).unflatten(1, (self.codec.knots, self.codec.dim))
        scores = log_probs(self._by_token(action_words(logits)), tokens, temperature)
        return tokens.cpu().numpy(), scores.cpu().numpy()

    def act(self, batch: ObservationBatch, decoding: Decoding = "argmax") -> np.ndarray:
        if self.record.head == "tokens":
            return super().act(batch, decoding)
        with torch.inference_mode():
            found = self.model.regressed(**to_tensors(self.transform(batch), self.model.device)).cpu().numpy()
        return self.record.action_spec.clip(self.codec.decode_normalised(found))

    def check_reinforceable(self, folder: Path) -> None:
        if self.record.head == "l1":
            raise RehearsalError(
                f"{folder} acts by its L1 head, which gives no probabilities: fine-tune its action tokens first "
                f"(python training/sft.py --checkpoint {folder}), or take a checkpoint trained on tokens"
            )

    def begin_training(self, options: ModelTraining) -> None:
        if options.lora.rank:
            add_lora(self.model, options.lora)
        elif self.record.weights == "bfloat16":
            log.warning(
                "all weights are trained in bfloat16, where steps below 1/256 of a weight round to nothing: adopt the "
                "checkpoint with weights = float32 and train with mixed_precision, or with lora.rank"
            )
        if options.freeze_vision:
            self.model.freeze_vision()
        if options.gradient_checkpointing:
            self.model.checkpoint_gradients()
        self.model.mixed_precision = options.mixed_precision

    def compute_in(self, precision: Precision) -> None:
        self.model.mixed_precision = precision == "bfloat16"

    def save(self, folder: Path) -> None:
        save_openvla(merged(self.model), folder, beside=self.folder)
        if self.statistics is not None:
            write_statistics(folder, self.statistics)
        write_record(folder, self.record)

    def _decoding_inputs(self, inputs: Mapping[str, np.ndarray]) -> tuple[Tensor, Tensor, Tensor]:
        tensors = to_tensors(inputs, self.model.device)
        return self.model.pixel_values(tensors["images"]), tensors["state"], tensors["text"]

    def _by_token(self, logits: Tensor) -> Tensor:
        return logits.unflatten(1, (self.codec.knots, self.codec.dim))


def load_openvla(folder: Path) -> OpenVLAPolicy:
    """Reads a policy's folder."""
    record = read_record(folder, OpenVLARecord)
    model = load_model(folder, record.codec, record.attention, record.weights)
    return OpenVLAPolicy(model, record, folder)


def load_model(folder: Path, codec: ActionCodec, attention: Attention, weights: Precision) -> OpenVLA:
    return load_openvla_model(
        folder,
        chunk_steps=codec.knots,
        action_dim=codec.dim,
        attention=attention,
        dtype=DTYPES[weights],
    )
