"""The study of LIBERO's expert: success from the stored initial states, a figure a task and a mean a suite."""

import logging
import time
from pathlib import Path

import msgspec
import numpy as np

from rehearsal.errors import RehearsalError
from rehearsal.results import write_result
from training.evaluation.success_rate import success_rate
from training.experts.libero.evaluation import evaluate_libero_expert
from training.simulators.libero.simulator import LiberoSimulator
from training.simulators.libero.workplace import LiberoWorkplace
from training.simulators.workplace import Physics

log = logging.getLogger(__name__)


class LiberoExpertStudy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `python training/evaluate_libero_expert.py`."""

    suites: tuple[str, ...] = ("libero_spatial", "libero_object", "libero_goal", "libero_10")
    task: str = "all"
    """One task's number, or all of them."""
    n: int = 50
    """Stored initial states a task."""
    physics: Physics = "fast"
    """fast: what demonstrations are made in; exact: the benchmark's own model."""
    horizon_steps: int = 400
    """Control steps after which an episode has failed."""
    threads: int = 0
    """Threads that simulate; 0: one a core."""
    result: Path | None = None
    """A result file to write."""
    note: str = ""
    """What bounds a figure that falls short; kept in the result file."""


def run_study(config: LiberoExpertStudy) -> None:
    """Prints a line a task and a suite; a task without a skill counts as failed, and is said to be so."""
    start = time.monotonic()
    figures: dict[str, float] = {}
    for suite in config.suites:
        workplace = LiberoWorkplace(suite)
        successes = tried = 0
        for task in workplace.tasks(config.task):
            chosen = workplace.scenarios(task.task, "stored", config.n)
            simulator = LiberoSimulator(
                suite,
                [task.number],
                cameras=(),
                side_px=16,
                max_worlds=config.n,
                threads=config.threads or None,
                physics=config.physics,
                horizon_steps=config.horizon_steps,
            )
            try:
                found = evaluate_libero_expert(simulator, chosen)
            except RehearsalError as error:
                log.warning("%s: %s", task.task, error)
                found = success_rate(np.zeros(len(chosen), bool), np.zeros(len(chosen)))
            finally:
                simulator.close()
            print(f"{task.task}: {found}, {found.steps:.0f} steps; {task.language}", flush=True)
            figures |= found.figures(task.task)
            successes, tried = successes + found.successes, tried + found.n
        mean = success_rate(np.arange(tried) < successes, np.zeros(tried))
        print(f"{suite}: {mean}", flush=True)
        figures |= mean.figures(f"{suite}.mean")
        if config.result:  # after each suite: an interrupted study keeps what it has
            seeds = {"stored_states": [0, config.n - 1]}
            seconds = time.monotonic() - start
            write_result(config.result, figures=figures, seeds=seeds, seconds=seconds, note=config.note)
