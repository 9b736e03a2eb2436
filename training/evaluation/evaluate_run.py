"""One evaluation of a trained policy on a cell's twin, as a result file and a line for people."""

import time
from pathlib import Path

import msgspec

from rehearsal.cell import read_cell
from rehearsal.results import write_result
from rehearsal.simulation import Scenario, Split, VectorSimulator, scenarios
from training.evaluation.success_rate import evaluate_greedy, pass_at_k
from training.policies.token_distribution import Decoding
from training.policies.trained_policy import TrainedPolicy, load_policy
from training.simulators.factory import make_simulator


class EvaluateRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `python training/evaluate.py`: what to try, and on what."""

    policy: Path = Path("runs/grpo")
    """A policy's folder or a run's."""
    cell: Path = Path("launch/cells/single_piper.toml")
    n: int = 50
    """Scenarios."""
    split: Split = "held_out"
    """Claims are made on held_out; checkpoints are chosen on validation."""
    decoding: Decoding = "argmax"
    """How the greedy policy picks a token."""
    pass_at: int = 0
    """Samples a scenario: pass@k at `temperature` in place of greedy success."""
    temperature: float = 1.6
    seed: int = 0
    """Of the samples."""
    max_worlds: int = 64
    """Worlds simulated at once."""
    result: Path | None = None
    """A result file to write."""


def run_evaluation(config: EvaluateRun) -> str:
    """Returns a line that says how the policy does, a warning after it where there is one."""
    start = time.monotonic()
    policy, cell = load_policy(config.policy), read_cell(config.cell)
    task, transform = policy.record.task, policy.record.transform
    simulator = make_simulator(
        cell, task, cameras=transform.cameras, side_px=transform.side_px, max_worlds=config.max_worlds
    )
    chosen = scenarios(task, config.split, config.n)
    try:
        figures, line = _measure(simulator, policy, chosen, config)
    finally:
        simulator.close()
    if config.result:
        seeds = {"scenarios": [chosen[0].seed, chosen[-1].seed], "samples": config.seed}
        write_result(config.result, figures=figures, seeds=seeds, seconds=time.monotonic() - start)
    return f"{task}: {line}"


def _measure(
    simulator: VectorSimulator, policy: TrainedPolicy, chosen: list[Scenario], config: EvaluateRun
) -> tuple[dict[str, float], str]:
    """Returns figures and a line."""
    task = policy.record.task
    if not config.pass_at:
        greedy = evaluate_greedy(simulator, policy, chosen, config.decoding)
        return greedy.figures(f"{task}.greedy"), f"greedy {greedy}"
    found = pass_at_k(
        simulator, policy, chosen, k=config.pass_at, temperature=config.temperature, seed=config.seed
    )
    line = f"pass@{found.k} {found.solved}, sampled {found.sampled}"
    figures = found.solved.figures(f"{task}.pass_at_{found.k}") | found.sampled.figures(f"{task}.sampled")
    return figures, line + (f"\nwarning: {found.warning}" if found.warning else "")
