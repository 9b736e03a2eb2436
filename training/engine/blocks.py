"""Which parts of a model FSDP shards one by one."""

from torch import nn


def repeated_blocks(module: nn.Module) -> list[nn.Module]:
    """Returns the layers that stand in lists of several of one kind, and no part of another such layer."""
    found: list[nn.Module] = []
    for part in module.children():
        if isinstance(part, nn.ModuleList) and len(part) > 1 and len({type(layer) for layer in part}) == 1:
            found += part
        else:
            found += repeated_blocks(part)
    return found
