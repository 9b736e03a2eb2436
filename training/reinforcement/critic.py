"""The critic of PPO: a network of its own that says how good a situation is (FLaRe, Hu et al. 2025).

It shares no weight with the policy: FLaRe found that a shared trunk lets the large early errors of the value spoil what
the policy knows. It begins as a copy of the policy's trunk, whose pictures are already understood, with a new head.
"""

import copy
from collections.abc import Iterator
from typing import Any, Protocol, cast

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from training.engine.engine import Engine, LocalEngine
from training.engine.shares import Share, shares
from training.policies.trained_policy import TrainedPolicy, to_tensors
from training.reinforcement.policy_update import minibatches
from training.reinforcement.trajectory import Trajectories

SHUFFLE = 7
"""Purpose of random numbers, so that no two ever share a seed."""


class Trunk(Protocol):
    """What a policy's model offers a critic beside its logits."""

    @property
    def feature_dim(self) -> int: ...

    def features(self, **inputs: Tensor) -> Tensor:
        """Returns float32 (B, feature_dim): what the model makes of its inputs, before the head of tokens."""
        ...


class CriticConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the critic; the defaults are FLaRe's."""

    learning_rate: float = 2e-5
    warmup_control_steps: int = 200_000
    """Control steps over which the critic alone learns, before the policy moves."""
    coefficient: float = 0.5
    """Weight of the squared error, which is not clipped."""
    epochs: int = 4
    """Passes over a batch."""
    minibatches: int = 4
    """Optimiser steps a pass."""
    gradient_clip: float = 0.5
    """Largest norm of the gradient."""


class Critic(nn.Module):
    """inputs -> values float32 (B,)."""

    def __init__(self, policy: TrainedPolicy) -> None:
        super().__init__()
        self.trunk = copy.deepcopy(policy.model)
        self.value = nn.Linear(cast(Trunk, self.trunk).feature_dim, 1)
        # Before it has seen a reward a critic should say 0, not a random number.
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(self, **inputs: Tensor) -> Tensor:
        features = cast(Trunk, self.trunk).features(**inputs)
        return self.value(features.to(self.value.weight.dtype)).float().squeeze(-1)


class CriticUpdate:
    """Holds the critic and its optimiser."""

    def __init__(
        self,
        policy: TrainedPolicy,
        config: CriticConfig,
        *,
        seed: int,
        frames_a_forward: int,
        engine: Engine | None = None,
    ) -> None:
        """engine: plain torch by default."""
        critic = Critic(policy).train()
        for name, weights in critic.named_parameters():
            if name.startswith("trunk.head."):
                weights.requires_grad_(False)  # the head of tokens is behind the features
        self.config = config
        self.seed = seed
        self.frames_a_forward = frames_a_forward
        self.engine = engine or LocalEngine()
        used = [weights for weights in critic.parameters() if weights.requires_grad]
        optimiser = torch.optim.AdamW(used, lr=config.learning_rate, betas=(0.9, 0.999), weight_decay=0.0)
        self.trained = self.engine.prepare(critic, optimiser)
        self._channel = self.engine.channel()

    def values(self, batch: Trajectories) -> np.ndarray:
        """Returns the value float64 (F,) of each frame."""
        found = np.zeros(batch.frames)
        with torch.no_grad():
            for share in self._shares(batch.frames):
                with self.trained.one_pass(last=True):
                    values = self.trained.module(**self._inputs(batch, share.rows))
                if share.counts:
                    found[share.rows] = values.double().cpu().numpy()
        return np.sum(self._channel.gather(found), axis=0)

    def learn(self, batch: Trajectories, returns: np.ndarray, step: int) -> dict[str, float]:
        """Fits the values to returns (F,); step: batches learned from before. Returns the step's scalars."""
        config, losses = self.config, []
        target = returns.astype(np.float32)
        for epoch in range(config.epochs):
            for chosen in minibatches(len(batch), config.minibatches, (self.seed, SHUFFLE, step, epoch)):
                losses.append(self._step(batch, batch.rows(chosen), target))
        spread = returns.var()
        return {
            "value_loss": self.engine.sums({"loss": float(np.mean(losses))})["loss"],
            "explained_variance": float(1 - (returns - self.values(batch)).var() / spread) if spread > 0 else 0.0,
        }

    def _step(self, batch: Trajectories, rows: np.ndarray, target: np.ndarray) -> float:
        """Makes one optimiser step on the frames `rows`; returns this process's part of their mean squared error."""
        total = 0.0
        for share in self._shares(len(rows)):
            piece = rows[share.rows]
            with self.trained.one_pass(last=share.last):
                values = self.trained.module(**self._inputs(batch, piece))
                error = (values - torch.from_numpy(target[piece]).to(values.device)).square().sum() / len(rows)
                error = error * float(share.counts)
                self.trained.backward(self.config.coefficient * error)
            total += float(error.detach())
        self.trained.step(self.config.gradient_clip)
        return total

    def _shares(self, frames: int) -> Iterator[Share]:
        return shares(frames, self.frames_a_forward, self.engine.rank, self.engine.ranks)

    def _inputs(self, batch: Trajectories, rows: np.ndarray) -> dict[str, Tensor]:
        device = next(self.trained.module.parameters()).device
        return to_tensors({name: array[rows] for name, array in batch.inputs.items()}, device)

    def state(self) -> dict[str, Any]:
        return self.trained.state()

    def load_state(self, state: dict[str, Any]) -> None:
        self.trained.load_state(state)
