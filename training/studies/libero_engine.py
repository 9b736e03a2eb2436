"""The LIBERO engine beside the stock environment, in one go: speed, where the time goes, and parity.

Stock is the package's OffScreenRenderEnv as SimpleVLA-RL (Li et al. 2025) builds it: two 256 x 256 cameras rendered at
every control step. The engine plays the same actions in chunks of eight and renders one such picture a chunk.
"""

import time
from pathlib import Path
from typing import Annotated

import msgspec

from rehearsal.errors import RehearsalError
from rehearsal.results import write_result
from training.simulators.libero.package import LiberoTask, libero_task
from training.simulators.libero.scene import load_scene
from training.studies.libero_parity import ParityRun, expert_actions, parity_figures
from training.studies.libero_speed import CHUNK_STEPS, SETTINGS, measure_physics, measure_speed, runs
from training.training_loop import progress_bar

# What was wanted of the engine; a figure that falls short is named in the result's note.
AT_LEAST = {
    "speedup_fast": 60.0,
    "speedup_exact": 12.0,
    "outcome_agreement_exact": 0.98,
    "outcome_agreement_fast": 0.95,
    "predicate_agreement": 1.0,
    "image_identity_exact": 1.0,
    "psnr_fast_db": 30.0,
}
AT_MOST = {"physics_over_bare_exact": 1.3, "physics_over_bare_fast": 1.3, "eef_error_m": 1e-5}

Count = Annotated[int, msgspec.Meta(ge=1)]


class LiberoEngineStudy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `python benchmarks/libero_engine.py`."""

    tasks: tuple[str, ...] = tuple(
        f"{suite}.{number}" for suite in ("libero_spatial", "libero_object") for number in range(4)
    )
    """Tasks that are compared with the stock environment, written as libero_spatial.0; speed is that of the first."""
    episodes: Count = 26
    """Episodes a task that are replayed in both, of at most 50: one a stored state."""
    horizon_steps: Count = 200
    """Control steps after which an episode has failed."""
    motion_steps: Count = 100
    """Control steps of free motion a task."""
    pictures: Count = 8
    """States a task of which pictures are compared, two cameras each."""
    side_px: Count = 256
    """Side of the square pictures."""
    speed_steps: Count = 64
    """Control steps of an episode that is timed, in whole chunks of eight."""
    repeats: Count = 5
    """So often is everything timed, in turn; the median counts."""
    seed: int = 0
    """Of the noise on actions and of free motion."""
    result: Path = Path("results/libero_engine.json")
    note: str = ""
    """What bounds a figure that falls short; kept in the result file after the list of such figures."""


def run_study(config: LiberoEngineStudy) -> dict[str, float]:
    """Measures, writes the result file and returns its figures.

    Raises RehearsalError for an unknown task, and when the package is missing.
    """
    start = time.monotonic()
    tasks = [_task(name) for name in config.tasks]
    if not tasks:
        raise RehearsalError("tasks is empty; name at least one, for example libero_spatial.0")
    for task in tasks:  # now, so that building them disturbs nothing that is timed
        for physics in SETTINGS:
            load_scene(task, physics)
    figures = measure(config, tasks)
    seeds = {
        "seed": config.seed,
        "tasks": list(config.tasks),
        "stored_states": [0, config.episodes - 1],
    }
    note = " ".join(part for part in (shortfall(figures), config.note) if part)
    write_result(config.result, figures=figures, seeds=seeds, seconds=time.monotonic() - start, note=note)
    return figures


def measure(config: LiberoEngineStudy, tasks: list[LiberoTask]) -> dict[str, float]:
    """Returns all figures, unrounded."""
    parity = ParityRun(
        episodes=config.episodes,
        horizon_steps=config.horizon_steps,
        motion_steps=config.motion_steps,
        pictures=config.pictures,
        side_px=config.side_px,
        seed=config.seed,
    )
    # An episode may be shorter than asked for, but a chunk is the least that can be timed.
    actions = expert_actions(tasks[0], 1, max(config.horizon_steps, CHUNK_STEPS))[0]
    actions = actions[: max(config.speed_steps, CHUNK_STEPS)]
    with progress_bar() as bar:
        speed = bar.add_task("speed", total=runs(config.repeats), shown="")
        physics = bar.add_task("physics alone", total=config.repeats * len(SETTINGS), shown="")
        replays = bar.add_task("replays", total=config.episodes * len(tasks), shown="")
        figures = measure_speed(
            tasks[0],
            actions,
            side_px=config.side_px,
            repeats=config.repeats,
            done=lambda: bar.advance(speed),
        )
        figures |= measure_physics(
            tasks[0], actions, repeats=config.repeats, done=lambda: bar.advance(physics)
        )
        found = []
        for task in tasks:
            bar.update(replays, shown=task.task)
            found.append(parity.compare(task, lambda: bar.advance(replays)))
    return figures | parity_figures(found)


def shortfall(figures: dict[str, float]) -> str:
    """Returns a sentence that names what falls short, for a speed with what takes the most time; or nothing."""
    short = [
        f"{name} is {figures[name]:.4g}, at least {wanted:g} was wanted{_bound(name, figures)}"
        for name, wanted in AT_LEAST.items()
        if figures[name] < wanted
    ]
    short += [
        f"{name} is {figures[name]:.4g}, at most {wanted:g} was wanted"
        for name, wanted in AT_MOST.items()
        if figures[name] > wanted
    ]
    return f"Falls short: {'; '.join(short)}." if short else ""


def _bound(name: str, figures: dict[str, float]) -> str:
    setting = name.removeprefix("speedup_")
    if setting == name:
        return ""
    shares = {part: figures[f"share_{part}_{setting}"] for part in ("physics", "rendering", "python")}
    largest = max(shares, key=lambda part: shares[part])
    return f" ({largest} takes {100 * shares[largest]:.0f} % of the time)"


def _task(name: str) -> LiberoTask:
    suite, dot, number = name.rpartition(".")
    if not (dot and number.isascii() and number.isdigit()):
        raise RehearsalError(f"tasks: {name!r} is no task; write suite and number, as libero_spatial.0")
    return libero_task(suite, int(number))
