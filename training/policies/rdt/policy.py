"""RDT as a policy: from observations to chunks of actions, for evaluation and serving.

A folder holds `config.json` and `model.safetensors` as RDT publishes them, `policy.json`, and for a small model the
weights of its condition tokens, `conditions.safetensors`; the encoders of a published one stay where they are.

Sampling starts from noise. Row b of the n-th call since `reset` (or since loading) starts from the b-th draw of a
generator seeded with (the record's seed, n): the same calls in the same order give the same actions.
"""

from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor

from rehearsal.errors import RehearsalError
from rehearsal.simulation import ObservationBatch
from training.policies.policy import Decoding, Record, read_record, write_record
from training.policies.rdt.checkpoint import load_rdt, read_weights, save_rdt, write_weights
from training.policies.rdt.embeddings import EncoderConditions, EncoderOptions
from training.policies.rdt.learned_conditions import LearnedConditions, LearnedOptions
from training.policies.rdt.model import RDT
from training.policies.rdt.sampling import Conditions, sample
from training.policies.rdt.unified_action import UnifiedLayout

CONDITIONS = "conditions.safetensors"


class RDTRecord(Record, frozen=True, tag="rdt"):
    """What `policy.json` holds. chunk_steps: of the horizon's actions, those that are played. seed: of the noise."""

    layout: UnifiedLayout
    conditions: EncoderOptions | LearnedOptions
    chunk_steps: int
    seed: int = 0


class RDTPolicy:
    """The model, what makes its condition tokens, and the record."""

    def __init__(self, rdt: RDT, conditions: EncoderConditions | LearnedConditions, record: RDTRecord) -> None:
        """Raises RehearsalError when the model is not made for the record's layout or chunk."""
        config, layout = rdt.config, record.layout
        if config.action_dim != layout.size or len(layout.slots) != record.action_spec.dim:
            raise RehearsalError(
                f"the model has {config.action_dim} slots; the layout has {layout.size} for {len(layout.slots)} of the "
                f"spec's {record.action_spec.dim} actions"
            )
        if not 1 <= record.chunk_steps <= config.pred_horizon:
            raise RehearsalError(
                f"chunk_steps = {record.chunk_steps}: the model gives {config.pred_horizon} actions at once; "
                f"valid: 1 to {config.pred_horizon}"
            )
        self.rdt = rdt
        self.conditions = conditions
        self.record = record
        self.calls = 0

    @property
    def cameras(self) -> tuple[str, ...]:
        return self.conditions.cameras

    @property
    def side_px(self) -> int:
        return self.conditions.side_px

    @property
    def state_dim(self) -> int:
        return len(self.record.layout.slots)

    @property
    def chunk_steps(self) -> int:
        return self.record.chunk_steps

    def act(self, batch: ObservationBatch, decoding: Decoding = "argmax") -> np.ndarray:
        """Returns actions float32 (B, T, A), within the spec's bounds; a diffusion policy has no tokens to decode."""
        rdt, layout = self.rdt, self.record.layout
        random = np.random.default_rng([self.record.seed, self.calls])
        noise = random.standard_normal((len(batch), rdt.config.pred_horizon, layout.size), dtype=np.float32)
        self.calls += 1
        language, mask, image = self.conditions(batch)
        unified = sample(
            rdt,
            make_conditions(rdt, self.record, torch.from_numpy(layout.state(batch.state)), language, mask, image),
            torch.from_numpy(noise).to(rdt.device, rdt.dtype),
        )
        actions = layout.decode(unified.float().cpu().numpy()[:, : self.chunk_steps], batch.state)
        return self.record.action_spec.clip(actions)

    def to(self, device: str) -> None:
        self.rdt.to(device)
        self.conditions.to_device(device)

    def reset(self) -> None:
        """Starts the noise over."""
        self.calls = 0

    def save(self, folder: Path) -> None:
        """Writes the folder; a reader never sees half of `policy.json`, which is written last."""
        save_rdt(self.rdt, folder)
        if isinstance(self.conditions, LearnedConditions):
            write_weights(self.conditions.state_dict(), folder / CONDITIONS)
        write_record(folder, self.record)


def make_conditions(
    rdt: RDT, record: RDTRecord, state: Tensor, language: Tensor, language_mask: Tensor, image: Tensor
) -> Conditions:
    """Returns the conditions of unified states (B, U), on the model's device and in its type."""
    mask = torch.from_numpy(record.layout.mask()).expand(len(state), 1, -1)
    rate = torch.full((len(state),), record.action_spec.rate_hz)
    return Conditions(
        language=language.to(rdt.device, rdt.dtype),
        language_mask=language_mask.to(rdt.device),
        image=image.to(rdt.device, rdt.dtype),
        state=state.unsqueeze(1).to(rdt.device, rdt.dtype),
        mask=mask.to(rdt.device, rdt.dtype),
        frequency_hz=rate.to(rdt.device),
    )


def load_rdt_policy(folder: Path) -> RDTPolicy:
    """Reads a folder that `save` wrote; raises RehearsalError when it, or an encoder it names, is not whole."""
    record = read_record(folder, RDTRecord)
    rdt = load_rdt(folder)
    if isinstance(record.conditions, EncoderOptions):
        # Absolute from here on, so that the policy can be saved elsewhere.
        options = msgspec.structs.replace(
            record.conditions,
            language=str((folder / record.conditions.language).resolve()),
            vision=str((folder / record.conditions.vision).resolve()),
        )
        record = msgspec.structs.replace(record, conditions=options)
        return RDTPolicy(rdt, EncoderConditions(options, rdt.config, folder, rdt.dtype).eval(), record)
    conditions = LearnedConditions(record.conditions)
    conditions.load_state_dict(read_weights(folder / CONDITIONS))
    return RDTPolicy(rdt, conditions.eval(), record)
