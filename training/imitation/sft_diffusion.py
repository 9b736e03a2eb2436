"""Supervised training of a small RDT: it learns to remove noise from demonstrated chunks, with its condition tokens.

The loss is RDT's (Liu et al. 2024): plain mean squared error of the clean chunk. Each decision point's pictures are
encoded once a step and serve several noise levels, for the denoiser costs less than the pictures. What is evaluated
and kept is an exponential moving average of the weights, as diffusion policies need (Chi et al. 2023).
"""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rehearsal.errors import RehearsalError
from rehearsal.simulation import ObservationBatch
from training.imitation.augmentation import add_noise, change_colour, shift
from training.imitation.demonstration_set import DemonstrationSet
from training.imitation.sft import SupervisedConfig, learning_rate, rows_of_step, seed_of
from training.policies.rdt.learned_conditions import LearnedConditions
from training.policies.rdt.model import RDT
from training.policies.rdt.policy import RDTPolicy, make_conditions
from training.policies.rdt.sampling import denoising_loss, forward_process
from training.policies.trained_policy import to_tensors

VALIDATION_FRAMES = 512
"""Decision points a validation looks at."""


class DiffusionConfig(SupervisedConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of supervised training of a diffusion policy."""

    noise_levels: int = 2
    """Noise levels a decision point is learned at in one step."""
    average_decay: float = 0.99
    """Of the moving average of the weights: it looks back 1 / (1 - this) steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise_levels < 1 or not 0 <= self.average_decay < 1:
            raise ValueError(
                f"noise_levels {self.noise_levels} must be at least 1, average_decay {self.average_decay} in [0, 1)"
            )


class ConditionedRDT(nn.Module):
    """The denoiser with what makes its condition tokens: all that is trained."""

    def __init__(self, rdt: RDT, conditions: LearnedConditions) -> None:
        super().__init__()
        self.rdt = rdt
        self.conditions = conditions


class DiffusionLearner:
    """Trains `model`; `policy` holds the moving average of its weights; `state` is all that a resume needs."""

    def __init__(self, policy: RDTPolicy, demonstrations: DemonstrationSet, config: DiffusionConfig) -> None:
        """policy: with learned conditions, untrained or trained before."""
        training, validation = demonstrations.split(config.validation_fraction)
        if not len(training):
            raise RehearsalError("no demonstrations to train on; make some: python training/collect_demos.py")
        assert isinstance(policy.conditions, LearnedConditions)
        self.config = config
        self.step = 0
        self.training = encode(policy, training)
        self.validation = encode(policy, validation) if len(validation) else None
        self.model = ConditionedRDT(policy.rdt, policy.conditions)
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(config.average_decay))
        self.averaged = cast(ConditionedRDT, self.average.module).eval()
        self.policy = RDTPolicy(self.averaged.rdt, self.averaged.conditions, policy.record)
        self.process = forward_process(policy.rdt.config.config.noise_scheduler)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, betas=(0.9, 0.999), weight_decay=config.weight_decay
        )

    @property
    def finished(self) -> bool:
        return self.step >= self.config.steps

    def update(self) -> dict[str, float]:
        """Makes one optimiser step; returns its scalars."""
        config, model = self.config, self.model.train()
        rate = learning_rate(config, self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        rows = rows_of_step(config, self.step, len(self.training["state"]))
        tensors = to_tensors({name: array[rows] for name, array in self.training.items()})
        generator = torch.Generator().manual_seed(seed_of(config.seed, 2, self.step))
        images = change_colour(tensors["images"], config.brightness, config.colour, generator)
        tensors["images"] = shift(images, config.shift_px, generator)
        tensors["state"] = add_noise(tensors["state"], config.state_noise, generator)
        loss = self._loss(model, tensors, config.noise_levels, generator)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        self.optimiser.step()
        self.average.update_parameters(model)
        self.step += 1
        return {"loss": float(loss.detach()), "gradient_norm": float(norm), "learning_rate": rate}

    def validate(self) -> dict[str, float]:
        """Returns the averaged weights' loss on the validation episodes, if there are any, always at the same noise."""
        if self.validation is None:
            return {}
        count = len(self.validation["state"])
        rows = np.linspace(0, count - 1, min(count, VALIDATION_FRAMES)).astype(int)
        tensors = to_tensors({name: array[rows] for name, array in self.validation.items()})
        generator = torch.Generator().manual_seed(seed_of(self.config.seed, 3))
        with torch.no_grad():
            return {"validation_loss": float(self._loss(self.averaged, tensors, 1, generator))}

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes what `state` gave, with the `step` it was saved at."""
        self.step = int(state["step"])
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])

    def _loss(
        self, model: ConditionedRDT, tensors: dict[str, Tensor], noise_levels: int, generator: torch.Generator
    ) -> Tensor:
        """tensors: images, text, state (B, U), actions (B, H, U)."""
        rdt, device = model.rdt, model.rdt.device
        tokens = model.conditions.tokens(tensors["images"].to(device), tensors["text"].to(device))
        conditions = make_conditions(rdt, self.policy.record, tensors["state"], *tokens).repeat(noise_levels)
        actions = tensors["actions"].repeat_interleave(noise_levels, dim=0)
        noise = torch.randn(actions.shape, generator=generator)
        levels = self.process.config["num_train_timesteps"]
        timestep = torch.randint(0, levels, (len(actions),), generator=generator)
        return denoising_loss(
            rdt, conditions, actions.to(device), noise.to(device), timestep.to(device), self.process
        )


def encode(policy: RDTPolicy, demonstrations: DemonstrationSet) -> dict[str, np.ndarray]:
    """Returns images, text, unified states and unified demonstrated chunks, one row a decision point."""
    conditions, layout = policy.conditions, policy.record.layout
    assert isinstance(conditions, LearnedConditions)
    seen = ObservationBatch(
        images={name: demonstrations.images[:, camera] for camera, name in enumerate(policy.cameras)},
        state=demonstrations.state,
        instructions=demonstrations.instructions,
    )
    return conditions.inputs(seen) | {
        "state": layout.state(demonstrations.state),
        "actions": layout.encode(demonstrations.actions, demonstrations.state),
    }
