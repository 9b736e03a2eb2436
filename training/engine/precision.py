"""What a model's passes compute in."""

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch
from torch import nn

Precision = Literal["float32", "bfloat16"]


@contextlib.contextmanager
def computing_in(precision: Precision, module: nn.Module) -> Iterator[None]:
    """Within it the passes of `module` compute in bfloat16 where that is asked for."""
    device = next(module.parameters()).device.type
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
        yield


def learn_in_float32(module: nn.Module) -> None:
    """Makes the weights that learn float32: steps of a small rate are lost in bfloat16's eight bits."""
    for weights in module.parameters():
        if weights.requires_grad:
            weights.data = weights.data.float()


def gathered_as(precision: Precision, module: nn.Module) -> None:
    """Makes the weights those that FSDP gathers for a pass, so that a copy that samples computes what is learned."""
    if precision == "bfloat16":
        for weights in module.parameters():
            weights.data = weights.data.bfloat16()
