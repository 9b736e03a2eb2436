"""Checkpoints that resume exactly: written beside and renamed, so that a reader never sees half of one.

A checkpoint is one nested dictionary of tensors, numbers and strings, read back without unpickling code. It holds
no state of random generators because none is kept: everything random in training is drawn from a generator seeded
with (the run's seed, the step, the purpose), so that the step number alone restores it.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from rehearsal.errors import RehearsalError

FILE = "state.pt"
PREFIX = "step_"


def save_checkpoint(root: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Writes `root/step_<step>` and removes all but the last `keep` checkpoints."""
    folder = root / f"{PREFIX}{step:06d}"
    partial = root / f".{folder.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with (partial / FILE).open("wb") as file:
        torch.save({"step": step, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    for old in checkpoints(root)[:-keep]:
        shutil.rmtree(old)
    return folder


def checkpoints(root: Path) -> list[Path]:
    """Returns the complete checkpoints below `root`, oldest first."""
    return sorted(path for path in root.glob(f"{PREFIX}*") if (path / FILE).is_file())


def load_checkpoint(root: Path) -> dict[str, Any] | None:
    """Returns the state saved last, `step` included, or None when there is none."""
    found = checkpoints(root)
    if not found:
        return None
    path = found[-1] / FILE
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError) as error:
        raise RehearsalError(f"damaged checkpoint {path}: {error}; remove its folder to use the one before") from None
