"""The study of recipes: PPO, GRPO, GRPO with one thing of the paper taken away, and options beyond the paper.

Every run begins with the same fine-tuned policy, simulates the same number of control steps for training, and is
judged greedily on the same held-out scenarios by its best policy on validation scenarios. A run that is finished is
not run again, so an interrupted study goes on; several processes may take a task each.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from rehearsal.config import plain, read_toml
from rehearsal.errors import RehearsalError, unknown_choice
from rehearsal.results import write_result
from training.evaluation.success_rate import evaluate_greedy, success_rate
from training.policies.policy import RUN_POLICY, load_policy
from training.reinforcement.grpo import GRPOConfig
from training.reinforcement.grpo_run import GRPORun, run_grpo
from training.reinforcement.ppo_run import PPORun, run_ppo
from training.run_folder import read_curve
from training.simulators.workplace import read_workplace

JUDGED = "held_out.json"


def _with(**changes: Any) -> Callable[[GRPOConfig], GRPOConfig]:
    return lambda config: msgspec.structs.replace(config, **changes)


def _sampling(**changes: Any) -> Callable[[GRPOConfig], GRPOConfig]:
    return lambda config: msgspec.structs.replace(
        config, sampling=msgspec.structs.replace(config.sampling, **changes)
    )


# What each variant changes of GRPO, and nothing else. The paper's: dynamic sampling, clip-higher, a temperature
# above 1, no KL. Beyond it: SRPO, Dr.GRPO, GSPO (its ranges are narrow because a decision's mean ratio hardly moves),
# a curriculum, asynchronous batches.
GRPO_VARIANTS: dict[str, Callable[[GRPOConfig], GRPOConfig]] = {
    "grpo": lambda config: config,
    "grpo_no_dynamic_sampling": _sampling(enabled=False),
    "grpo_symmetric_clip": _with(clip_high=0.2),
    "grpo_temperature_1": _with(temperature=1.0),
    "grpo_kl": _with(kl_coefficient=0.04),
    "grpo_progress_reward": lambda config: _sampling(success_low=0.0)(_with(progress_weight=0.5)(config)),
    "grpo_dr": _with(advantage_scale="none", aggregation="constant"),
    "grpo_gspo": _with(ratio_of="chunk", clip_low=0.03, clip_high=0.04),
    "grpo_curriculum": _sampling(curriculum=True),
    "grpo_asynchronous": _with(asynchronous=True),
}
VARIANTS = ("ppo", *GRPO_VARIANTS)


class RecipesStudy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `python training/recipes.py`."""

    tasks: tuple[str, ...] = ("click_bell", "pick_bottle")
    variants: tuple[str, ...] = VARIANTS
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of sampling and minibatches; the policy to begin with is the same."""
    configs: Path = Path("launch/training/recipes")
    """Folder with <task>_grpo.toml and <task>_ppo.toml."""
    runs: Path = Path("runs/recipes")
    n: int = 200
    """Held-out scenarios a run."""
    train: bool = True
    """Off: only write the result of the runs that are there."""
    results: Path = Path("results")
    note: str = ""
    """What bounds a figure that falls short; kept in the result file."""


def run_study(config: RecipesStudy) -> list[str]:
    """Trains and judges what is missing, and writes recipes.json and recipes_curves.json; returns a line a variant."""
    start = time.monotonic()
    for variant in config.variants:
        if variant not in VARIANTS:
            raise unknown_choice("variant", variant, VARIANTS)
    if config.train:
        for task in config.tasks:
            judge_start(config, task)
        # Seed by seed, so that an unfinished study compares as many runs of each variant.
        for seed in config.seeds:
            for variant in config.variants:
                for task in config.tasks:
                    train_and_judge(config, task, variant, seed)
    figures, curves = collect(config)
    if not figures:
        raise RehearsalError(f"no finished run in {config.runs}; run python training/recipes.py")
    seeds = {"training": list(config.seeds), "scenarios": [2_000_000, 2_000_000 + config.n - 1]}
    seconds = time.monotonic() - start
    write_result(
        config.results / "recipes.json", figures=figures, seeds=seeds, seconds=seconds, note=config.note
    )
    write_result(config.results / "recipes_curves.json", figures=curves, seeds=seeds, seconds=seconds)
    return [f"{name}: {100 * value:.1f} %" for name, value in figures.items() if name.endswith(".success")]


def run_folder(config: RecipesStudy, task: str, variant: str, seed: int) -> Path:
    return config.runs / task / f"{variant}_{seed}"


def train_and_judge(config: RecipesStudy, task: str, variant: str, seed: int) -> None:
    """Runs one recipe to its budget, then its policy on the held-out scenarios; keeps the outcomes beside the run."""
    out = run_folder(config, task, variant, seed)
    if (out / JUDGED).is_file():
        return
    cell = train_variant(config, task, variant, seed, out)
    judge(out, out / RUN_POLICY, cell, task, config.n)


def judge_start(config: RecipesStudy, task: str) -> None:
    """Judges the policy that every run of a task begins with."""
    grpo = read_toml(config.configs / f"{task}_grpo.toml", GRPORun)
    out = config.runs / task / "sft"
    if not (out / JUDGED).is_file():
        judge(out, grpo.policy, grpo.cell, task, config.n)


def train_variant(config: RecipesStudy, task: str, variant: str, seed: int, out: Path) -> Path:
    """Trains one variant; returns the cell's file."""
    if variant == "ppo":
        ppo = read_toml(config.configs / f"{task}_ppo.toml", PPORun)
        training = msgspec.structs.replace(ppo.training, seed=seed)
        run_ppo(msgspec.structs.replace(ppo, out=out, training=training))
        return ppo.cell
    grpo = read_toml(config.configs / f"{task}_grpo.toml", GRPORun)
    changed = GRPO_VARIANTS[variant](msgspec.structs.replace(grpo.training, seed=seed))
    run_grpo(msgspec.structs.replace(grpo, out=out, training=changed))
    return grpo.cell


def judge(out: Path, policy_folder: Path, cell: Path, task: str, n: int) -> None:
    """Writes `out`/held_out.json: successes of the policy on n held-out scenarios."""
    workplace, policy = read_workplace(cell), load_policy(policy_folder)
    chosen = workplace.scenarios(task, "held_out", n)
    simulator = workplace.simulator(
        task, cameras=policy.cameras, side_px=policy.side_px, max_worlds=min(n, 100), threads=1
    )
    try:
        found = evaluate_greedy(simulator, policy, chosen)
    finally:
        simulator.close()
    partial = out / f".{JUDGED}.partial"
    partial.write_text(json.dumps({"successes": found.successes, "n": found.n, "policy": plain(policy.record)}))
    os.replace(partial, out / JUDGED)


def collect(config: RecipesStudy) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the figures and the curves of all finished runs.

    success is the mean over seeds, low and high the 95 % interval of all their episodes taken together, which
    leaves out that seeds differ; each seed's own success stands beside it.
    """
    figures: dict[str, float] = {}
    curves: dict[str, float] = {}
    for task in config.tasks:
        for variant in ("sft", *config.variants):
            folders = {
                seed: run_folder(config, task, variant, seed) for seed in config.seeds if variant != "sft"
            }
            if variant == "sft":
                folders = {0: config.runs / task / "sft"}
            done = {seed: folder for seed, folder in folders.items() if (folder / JUDGED).is_file()}
            if done:
                figures |= variant_figures(f"{task}.{variant}", done)
            for seed, folder in done.items():
                curves |= curve_figures(f"{task}.{variant}.seed_{seed}", folder) if variant != "sft" else {}
    return figures, curves


def variant_figures(name: str, done: dict[int, Path]) -> dict[str, float]:
    found = {seed: json.loads((folder / JUDGED).read_text()) for seed, folder in done.items()}
    success = np.concatenate([np.arange(each["n"]) < each["successes"] for each in found.values()])
    figures = success_rate(success, np.zeros(len(success))).figures(f"{name}.success")
    return figures | {f"{name}.seed_{seed}": each["successes"] / each["n"] for seed, each in found.items()}


def curve_figures(name: str, folder: Path) -> dict[str, float]:
    """Returns greedy success on validation scenarios by control steps simulated for training."""
    return {
        f"{name}.at_{int(line.get('control_steps', 0))}": line["greedy_success"]
        for line in read_curve(folder)
        if "greedy_success" in line
    }
