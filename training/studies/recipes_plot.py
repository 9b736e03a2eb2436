"""Learning curves of the recipes: greedy success on validation scenarios against control steps, mean over seeds.

One row a task; on the left PPO and what the paper's parts are worth, on the right what goes beyond the paper.
"""

import re
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rehearsal.errors import RehearsalError
from rehearsal.results import Result
from training.studies.learning_curve_plot import save_figure

_FIGURE = re.compile(r"(?P<task>\w+)\.(?P<variant>\w+)\.seed_(?P<seed>\d+)\.at_(?P<steps>\d+)")
COLUMNS = {
    "the paper's parts, and PPO": (
        "grpo", "grpo_no_dynamic_sampling", "grpo_symmetric_clip", "grpo_temperature_1", "grpo_kl", "ppo",
    ),
    "beyond the paper": (
        "grpo", "grpo_progress_reward", "grpo_dr", "grpo_gspo", "grpo_curriculum", "grpo_asynchronous",
    ),
}  # fmt: skip
LABELS = {
    "grpo": "GRPO",
    "grpo_no_dynamic_sampling": "no dynamic sampling",
    "grpo_symmetric_clip": "symmetric clip",
    "grpo_temperature_1": "temperature 1",
    "grpo_kl": "KL penalty",
    "ppo": "PPO",
    "grpo_progress_reward": "progress reward (SRPO)",
    "grpo_dr": "Dr.GRPO",
    "grpo_gspo": "GSPO",
    "grpo_curriculum": "curriculum",
    "grpo_asynchronous": "asynchronous",
}
# Okabe and Ito, told apart by colour-blind readers too; GRPO, in both panels, is black.
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00")
GRID = 40
"""Points at which the seeds' curves are averaged."""

Curves = dict[str, dict[str, dict[int, list[tuple[int, float]]]]]


def recipe_curves(result: Result) -> Curves:
    """Returns task -> variant -> seed -> [(control steps, success in [0, 1])] in order; other figures are left out."""
    found: Curves = {}
    for name, value in result.figures.items():
        if match := _FIGURE.fullmatch(name):
            seeds = found.setdefault(match["task"], {}).setdefault(match["variant"], {})
            seeds.setdefault(int(match["seed"]), []).append((int(match["steps"]), value))
    return {
        task: {name: {seed: sorted(points) for seed, points in seeds.items()} for name, seeds in variants.items()}
        for task, variants in sorted(found.items())
    }


def mean_curve(seeds: dict[int, list[tuple[int, float]]]) -> tuple[np.ndarray, np.ndarray]:
    """Returns control steps (GRID,) up to where every seed has been, and the mean success (GRID,) over the seeds."""
    end = min(points[-1][0] for points in seeds.values())
    grid = np.linspace(0, end, GRID)
    curves = [np.array(points, dtype=np.float64).T for points in seeds.values()]
    return grid, np.mean([np.interp(grid, steps, success) for steps, success in curves], axis=0)


def write_recipes_plot(path: Path, result: Result) -> None:
    """Draws an SVG; raises RehearsalError when the result holds no curve."""
    tasks = recipe_curves(result)
    if not tasks:
        raise RehearsalError(f"no curve for {path}: figures are named <task>.<variant>.seed_<s>.at_<control steps>")
    figure = Figure(figsize=(9.6, 3.1 * len(tasks)), layout="constrained")
    panels = figure.subplots(len(tasks), len(COLUMNS), sharey=True, squeeze=False)
    for row, (task, variants) in zip(panels, tasks.items(), strict=True):
        for panel, (title, names) in zip(row, COLUMNS.items(), strict=True):
            _draw(panel, {name: variants[name] for name in names if name in variants}, names)
            panel.set_title(f"{task.replace('_', ' ')}: {title}", fontsize=10, loc="left")
        row[0].set_ylabel("greedy success [%]", fontsize=9)
    for panel in panels[-1]:
        panel.set_xlabel("control steps simulated for training [thousands]", fontsize=9)
    save_figure(figure, path, result)


def _draw(panel: Axes, variants: dict[str, dict[int, list[tuple[int, float]]]], names: tuple[str, ...]) -> None:
    for name, seeds in variants.items():
        steps, success = mean_curve(seeds)
        width = 2.0 if name in ("grpo", "ppo") else 1.3
        panel.plot(
            steps / 1000, 100 * success, color=COLOURS[names.index(name)], linewidth=width, label=LABELS[name]
        )
    panel.set_ylim(0, 102)
    panel.grid(axis="y", alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(fontsize=7, frameon=False, loc="upper left", ncols=2)
