"""Initial states of a scene: the benchmark's stored ones, and ones that its own placement rules draw.

A drawn state takes the stock sampler 40 ms, so a split is drawn when it is first asked for, and kept in the scene's
cache folder; who evaluates on stored states draws none.
"""

import os
import tempfile
from functools import cache
from pathlib import Path
from threading import Lock

import numpy as np
from rich.console import Console
from rich.progress import track

from rehearsal.simulation import SPLIT_START, Split
from training.simulators.libero.package import LiberoTask
from training.simulators.libero.scene_builder import draw_initial_state, stock_environment

DRAWN_STATES: dict[Split, int] = {"train": 500, "validation": 64, "held_out": 128}
"""Initial states drawn a task and split."""

_DRAWING = Lock()  # worlds are reset on several threads, and the stock sampler uses numpy's global generator


def initial_states(task: LiberoTask, folder: Path, split: Split) -> np.ndarray:
    """Returns float64 (N, 1 + nq + nv), rows of time, qpos and qvel, for `stored`; else (N, nq), at rest.

    folder: the scene's in the cache. Raises RehearsalError when the package has no stored states for the task.
    """
    with _DRAWING:
        return _initial_states(task, folder, split)


@cache
def _initial_states(task: LiberoTask, folder: Path, split: Split) -> np.ndarray:
    if split == "stored":
        return task.stored_states()
    path = folder / f"{split}_{DRAWN_STATES[split]}.npy"
    if not path.is_file():
        _draw(task, path, split)
    states: np.ndarray = np.load(path, allow_pickle=False)
    return states


def _draw(task: LiberoTask, path: Path, split: Split) -> None:
    """Writes the states of a split; other processes see the file whole or not at all."""
    seeds = range(SPLIT_START[split], SPLIT_START[split] + DRAWN_STATES[split])
    label = f"{task.task}: drawing {split} states"
    with stock_environment(task) as env:
        bar = track(seeds, label, console=Console(stderr=True), transient=True)
        drawn = np.stack([draw_initial_state(env, seed) for seed in bar])
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{split}.", delete=False) as partial:
        try:
            np.save(partial, drawn, allow_pickle=False)
            partial.close()
            os.replace(partial.name, path)
        except BaseException:
            Path(partial.name).unlink(missing_ok=True)
            raise
