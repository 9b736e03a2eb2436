"""The study of the four tasks: expert, SFT and SFT + GRPO on held-out scenarios, and the learning curves.

Reads the runs that `launch/twin_tasks.sh` leaves in `runs/twin_tasks/<task>/`; trains nothing.
"""

import time
from pathlib import Path

import msgspec

from rehearsal.cell import Cell, read_cell
from rehearsal.errors import RehearsalError
from rehearsal.results import write_result
from rehearsal.simulation import scenarios
from training.evaluation.success_rate import SuccessRate, evaluate_greedy
from training.experts.evaluation import evaluate_expert
from training.experts.expert import Expert
from training.policies.policy import load_policy
from training.run_folder import read_curve
from training.simulators.twin.simulator import TwinSimulator

STAGES = ("sft", "grpo")


class TwinTasksStudy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `python training/twin_tasks.py`."""

    cell: Path = Path("launch/cells/single_piper.toml")
    runs: Path = Path("runs/twin_tasks")
    """Folder with one folder a task, each with sft/ and grpo/."""
    tasks: tuple[str, ...] = ()
    """All tasks of the cell by default."""
    n: int = 200
    """Held-out scenarios of each figure."""
    max_worlds: int = 100
    """Worlds simulated at once."""
    results: Path = Path("results")
    note: str = ""
    """What bounds a figure that falls short; kept in the result file."""


def run_study(config: TwinTasksStudy) -> list[str]:
    """Evaluates every run, writes twin_tasks.json and twin_learning_curves.json; returns a line a figure."""
    start = time.monotonic()
    cell = read_cell(config.cell)
    figures: dict[str, float] = {}
    curves: dict[str, float] = {}
    seeds: dict[str, object] = {}
    lines = []
    for task in config.tasks or cell.tasks:
        for stage, found in evaluate_task(cell, task, config).items():
            figures |= found.figures(f"{task}.{stage}")
            lines.append(f"{task}.{stage}: {found}")
        curves |= curve_figures(task, config.runs / task / "grpo")
        chosen = scenarios(task, "held_out", config.n)
        seeds[task] = {"scenarios": [chosen[0].seed, chosen[-1].seed], "training": training_seeds(config.runs / task)}
    seconds = time.monotonic() - start
    write_result(
        config.results / "twin_tasks.json", figures=figures, seeds=seeds, seconds=seconds, note=config.note
    )
    write_result(config.results / "twin_learning_curves.json", figures=curves, seeds=seeds, seconds=seconds)
    return lines


def evaluate_task(cell: Cell, task: str, config: TwinTasksStudy) -> dict[str, SuccessRate]:
    """Returns the held-out success of the expert and of the greedy policy of each stage."""
    chosen = scenarios(task, "held_out", config.n)
    found: dict[str, SuccessRate] = {}
    for stage in STAGES:
        policy = load_policy(config.runs / task / stage)
        if policy.record.task != task:
            raise RehearsalError(f"{config.runs / task / stage} is a policy for {policy.record.task}, not for {task}")
        simulator = TwinSimulator(
            cell, task, cameras=policy.cameras, side_px=policy.side_px, max_worlds=config.max_worlds
        )
        if not found:
            found["expert"] = evaluate_expert(simulator, Expert(cell, task), chosen)
        found[stage] = evaluate_greedy(simulator, policy, chosen)
        simulator.close()
    return found


def curve_figures(task: str, run: Path) -> dict[str, float]:
    """Returns the learning curve of a GRPO run: greedy success on validation and sampled success on train scenarios."""
    figures: dict[str, float] = {}
    for line in read_curve(run):
        for kind in ("greedy", "sampled"):
            if f"{kind}_success" in line:
                figures[f"{task}.step_{int(line['step'])}.{kind}"] = line[f"{kind}_success"]
    return figures


def training_seeds(runs: Path) -> dict[str, int]:
    """Returns stage -> seed of its training run, from the configs saved with the runs."""
    return {
        stage: msgspec.json.decode((runs / stage / "config.json").read_bytes())["config"]["training"]["seed"]
        for stage in STAGES
    }
