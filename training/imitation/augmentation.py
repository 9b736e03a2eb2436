"""Random changes to training inputs that should not change what to do."""

import torch
import torch.nn.functional as F
from torch import Tensor


def change_colour(images: Tensor, brightness: float, colour: float, generator: torch.Generator) -> Tensor:
    """Scales each picture's channels of images uint8 (B, C, side, side, 3).

    One factor in 1 +- brightness for the whole picture and one in 1 +- colour for each channel.
    """
    if brightness == 0 and colour == 0:
        return images
    pictures = images.shape[:2]
    factor = 1 + brightness * _symmetric((*pictures, 1, 1, 1), generator)
    factor = factor * (1 + colour * _symmetric((*pictures, 1, 1, 3), generator))
    return (images * factor).round_().clamp_(0, 255).to(torch.uint8)


def shift(images: Tensor, shift_px: int, generator: torch.Generator) -> Tensor:
    """Moves each picture by up to shift_px in x and y, the border repeated (DrQ, Yarats et al. 2021).

    Where the action follows from absolute places in the picture of a fixed camera, a shift is also an error of the
    label: use it with care.
    """
    if shift_px == 0:
        return images
    batch, cameras, side = images.shape[:3]
    flat = images.flatten(0, 1).permute(0, 3, 1, 2).float()
    padded = F.pad(flat, (shift_px,) * 4, mode="replicate").permute(0, 2, 3, 1)
    offset = torch.randint(0, 2 * shift_px + 1, (batch * cameras, 2), generator=generator)
    line = torch.arange(side)
    rows = (offset[:, :1] + line)[:, :, None]
    columns = (offset[:, 1:] + line)[:, None, :]
    moved = padded[torch.arange(batch * cameras)[:, None, None], rows, columns]
    return moved.to(torch.uint8).unflatten(0, (batch, cameras))


def add_noise(state: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Adds Gaussian noise to normalised states float32 (B, S)."""
    return state if std == 0 else state + std * torch.randn(state.shape, generator=generator).to(state.device)


def _symmetric(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator) * 2 - 1
