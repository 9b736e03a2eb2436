"""How RDT learns to denoise and how actions are drawn from it.

Training: DDPM's forward process (Ho et al. 2020) on the squared-cosine schedule, plain mean squared error over every
slot: the mask of valid slots is an input, and acts on nothing else before the end of sampling. Sampling: a few steps of
DPM-Solver++ (2M, Lu et al. 2022). Noise comes from the caller, so that every result can be made again.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from training.policies.rdt.config import NoiseConfig
from training.policies.rdt.model import RDT


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the denoising of B chunks depends on.

    language: (B, L, lang_token_dim). language_mask: bool (B, L), True where a token is valid; None: everywhere.
    image: (B, img_cond_len, img_token_dim). state: (B, 1, U), unified. mask: (B, 1, U), 1 in slots that are used.
    frequency_hz: (B,), of control.
    """

    language: Tensor
    language_mask: Tensor | None
    image: Tensor
    state: Tensor
    mask: Tensor
    frequency_hz: Tensor

    def repeat(self, times: int) -> "Conditions":
        """Returns B x times rows, each row's copies side by side."""
        tensors = {name: value for name, value in vars(self).items() if value is not None}
        return replace(self, **{name: value.repeat_interleave(times, dim=0) for name, value in tensors.items()})


def forward_process(config: NoiseConfig) -> DDPMScheduler:
    return DDPMScheduler(
        num_train_timesteps=config.num_train_timesteps,
        beta_schedule=config.beta_schedule,
        prediction_type=config.prediction_type,
        clip_sample=config.clip_sample,
    )


def solver(config: NoiseConfig) -> DPMSolverMultistepScheduler:
    return DPMSolverMultistepScheduler(
        num_train_timesteps=config.num_train_timesteps,
        beta_schedule=config.beta_schedule,
        prediction_type=config.prediction_type,
    )


def predict(rdt: RDT, conditions: Conditions, noisy: Tensor, timestep: Tensor) -> Tensor:
    """Returns the model's output (B, H, U) for noisy actions (B, H, U); timestep: (B,), or (1,) for all."""
    row = torch.cat([conditions.state, noisy], dim=1)
    row = torch.cat([row, conditions.mask.expand(-1, row.shape[1], -1)], dim=2)
    return rdt.model(
        rdt.state_adaptor(row),
        conditions.frequency_hz,
        timestep,
        rdt.lang_adaptor(conditions.language),
        rdt.img_adaptor(conditions.image),
        conditions.language_mask,
    )


def denoising_loss(
    rdt: RDT, conditions: Conditions, actions: Tensor, noise: Tensor, timestep: Tensor, process: DDPMScheduler
) -> Tensor:
    """Returns the loss of one noise level a row. actions, noise: (B, H, U), unified. timestep: int64 (B,)."""
    noisy = process.add_noise(actions, noise, timestep)
    target = actions if process.config["prediction_type"] == "sample" else noise
    return F.mse_loss(predict(rdt, conditions, noisy, timestep), target)


@torch.inference_mode()
def sample(rdt: RDT, conditions: Conditions, noise: Tensor, steps: int | None = None) -> Tensor:
    """Returns actions (B, H, U), unified, zero outside the mask, that start from noise (B, H, U).

    steps: of the solver, by default those that the config names.
    """
    config = rdt.config.config.noise_scheduler
    scheduler = solver(config)
    scheduler.set_timesteps(steps or config.num_inference_timesteps)
    language, image = rdt.lang_adaptor(conditions.language), rdt.img_adaptor(conditions.image)
    mask = conditions.mask.expand(-1, noise.shape[1], -1)
    state = rdt.state_adaptor(torch.cat([conditions.state, conditions.mask], dim=2))
    actions = noise
    for timestep in scheduler.timesteps:
        row = torch.cat([state, rdt.state_adaptor(torch.cat([actions, mask], dim=2))], dim=1)
        output = rdt.model(
            row,
            conditions.frequency_hz,
            timestep.reshape(1).to(noise.device),
            language,
            image,
            conditions.language_mask,
        )
        actions = scheduler.step(output, timestep, actions).prev_sample.to(noise.dtype)
    return actions * mask
