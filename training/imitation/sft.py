"""Supervised fine-tuning: cross-entropy of the demonstrated action tokens, all of a chunk in parallel.

Targets may be smoothed by a Gaussian over neighbouring bins: with the ordinal head this sets a floor under the
policy's spread, and so how much it explores when reinforcement begins.
"""

import math
from typing import Any

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rehearsal.errors import RehearsalError
from rehearsal.simulation import ObservationBatch
from training.engine.engine import Engine
from training.engine.shares import shares
from training.imitation.augmentation import add_noise, change_colour, shift
from training.imitation.demonstration_set import DemonstrationSet
from training.policies.learning_policy import LearningPolicy
from training.policies.trained_policy import TrainedPolicy, to_tensors


class SupervisedConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of learning from demonstrations, whatever the policy."""

    seed: int = 0
    """Seed of weights, batches and augmentation."""
    steps: int = 1000
    """Optimiser steps."""
    batch_frames: int = 64
    """Decision points a step."""
    learning_rate: float = 1e-3
    """Peak rate, after a linear warm-up and before a cosine decay to `final_rate_fraction` of it."""
    warmup_steps: int = 50
    final_rate_fraction: float = 0.02
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    """Largest norm of the gradient."""
    brightness: float = 0.0
    """Each picture's brightness is scaled by a factor in 1 +- this."""
    colour: float = 0.0
    """Each channel is scaled by a factor in 1 +- this."""
    shift_px: int = 0
    """Each picture is moved by up to this many pixels."""
    state_noise: float = 0.0
    """Standard deviation of noise on the normalised state: a few demonstrations leave most states unseen."""
    validation_fraction: float = 0.05
    """Share of the episodes kept out of training to follow the loss on."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_frames < 1:
            raise ValueError("steps and batch_frames must be at least 1")
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must be in [0, 1), got {self.validation_fraction}")


class SFTConfig(SupervisedConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of supervised fine-tuning of action tokens."""

    frames_a_forward: int = 512
    """Decision points in one pass through the policy; bounds memory and changes nothing else."""
    target_std_bins: float = 0.0
    """Standard deviation [bins] of the Gaussian that smooths the targets; 0: one bin is right, its neighbours wrong."""


class SupervisedLearner:
    """Holds the policy, its optimiser and the data; `update` makes one step; `state` is all that a resume needs."""

    def __init__(
        self,
        policy: TrainedPolicy,
        demonstrations: DemonstrationSet,
        config: SFTConfig,
        engine: Engine | None = None,
    ) -> None:
        """engine: plain torch by default."""
        training, validation = demonstrations.split(config.validation_fraction)
        if not len(training):
            raise RehearsalError("no demonstrations to train on; make some: python training/collect_demos.py")
        self.policy = policy
        self.config = config
        self.step = 0
        self.training = encode(policy, training)
        self.validation = encode(policy, validation) if len(validation) else None
        self.learning = LearningPolicy(
            policy, engine, learning_rate=config.learning_rate, weight_decay=config.weight_decay
        )
        self.engine, self.trained = self.learning.engine, self.learning.trained

    @property
    def finished(self) -> bool:
        return self.step >= self.config.steps

    def update(self) -> dict[str, float]:
        """Makes one optimiser step; returns its scalars."""
        config, loss = self.config, 0.0
        rate = learning_rate(config, self.step)
        self.learning.begin(rate)
        tensors = self._batch()
        for share in shares(config.batch_frames, config.frames_a_forward, self.engine.rank, self.engine.ranks):
            rows = torch.from_numpy(share.rows)
            piece = {name: tensor[rows].to(self.learning.device) for name, tensor in tensors.items()}
            tokens = piece.pop("tokens")
            with self.trained.one_pass(last=share.last):
                mean = token_loss(self.trained.module(piece, tokens), tokens, config.target_std_bins)
                part = mean * (len(tokens) * share.counts / config.batch_frames)
                self.trained.backward(part)
            loss += float(part.detach())
        norm = self.trained.step(config.gradient_clip)
        self.step += 1
        return {"loss": self.engine.sums({"loss": loss})["loss"], "gradient_norm": norm, "learning_rate": rate}

    def _batch(self) -> dict[str, Tensor]:
        """Returns this step's frames by name, augmented, on the CPU: the same on every kind of device."""
        config = self.config
        rows = rows_of_step(config, self.step, len(self.training["tokens"]))
        tensors = to_tensors({name: array[rows] for name, array in self.training.items()})
        generator = torch.Generator().manual_seed(seed_of(config.seed, 2, self.step))
        images = change_colour(tensors["images"], config.brightness, config.colour, generator)
        tensors["state"] = add_noise(tensors["state"], config.state_noise, generator)
        tensors["images"] = shift(images, config.shift_px, generator)
        return tensors

    def validate(self, frames_a_forward: int = 512) -> dict[str, float]:
        """Makes the policy what has been learned; returns loss and mean error [bins] of its greedy tokens on the
        validation episodes, if there are any.
        """
        self.learning.publish()
        if self.validation is None:
            return {}
        data, count = self.validation, len(self.validation["tokens"])
        loss, error = 0.0, 0.0
        for start in range(0, count, frames_a_forward):
            inputs = {name: array[start : start + frames_a_forward] for name, array in data.items()}
            tokens = torch.from_numpy(inputs.pop("tokens"))
            logits = self.policy.logits(inputs).cpu()
            loss += float(token_loss(logits, tokens, self.config.target_std_bins)) * len(tokens)
            error += float((logits.argmax(-1) - tokens).abs().float().mean()) * len(tokens)
        return {"validation_loss": loss / count, "validation_error_bins": error / count}

    def state(self) -> dict[str, Any]:
        return self.learning.state()

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes what `state` gave, with the `step` it was saved at."""
        self.step = int(state["step"])
        self.learning.load_state(state)


def encode(policy: TrainedPolicy, demonstrations: DemonstrationSet) -> dict[str, np.ndarray]:
    """Returns the model's inputs and the demonstrated tokens, by name, one row a decision point."""
    seen = ObservationBatch(
        images={name: demonstrations.images[:, camera] for camera, name in enumerate(policy.cameras)},
        state=demonstrations.state,
        instructions=demonstrations.instructions,
    )
    return policy.transform(seen) | {"tokens": policy.codec.encode(demonstrations.actions, demonstrations.state)}


def rows_of_step(config: SupervisedConfig, step: int, count: int) -> np.ndarray:
    """Returns a step's rows of `count`: one pass after another over all of them, each in its own random order."""
    size = config.batch_frames
    places = np.arange(step * size, (step + 1) * size)
    rows = np.empty(size, dtype=np.int64)
    for epoch in np.unique(places // count):
        order = np.random.default_rng([config.seed, 1, int(epoch)]).permutation(count)
        within = places // count == epoch
        rows[within] = order[places[within] % count]
    return rows


def learning_rate(config: SupervisedConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to the final fraction at the last step."""
    warm = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    cosine = 0.5 * (1 + math.cos(math.pi * min(step / max(config.steps - 1, 1), 1.0)))
    return config.learning_rate * warm * (config.final_rate_fraction + (1 - config.final_rate_fraction) * cosine)


def token_loss(logits: Tensor, tokens: Tensor, target_std_bins: float) -> Tensor:
    """Returns the mean cross-entropy [nat] of tokens (B, K, A) under logits (B, K, A, bins)."""
    if target_std_bins == 0:
        return F.cross_entropy(logits.flatten(0, -2), tokens.flatten())
    index = torch.arange(logits.shape[-1], device=logits.device)
    distance = (index - tokens.unsqueeze(-1)) / target_std_bins
    target = F.softmax(-0.5 * distance.square(), dim=-1)
    return -(target * F.log_softmax(logits, dim=-1)).sum(-1).mean()


def seed_of(*key: int) -> int:
    """Returns one well-mixed seed for a tuple of non-negative numbers."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
