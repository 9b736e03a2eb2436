"""Greedy success of a trained policy on the twin, on held-out scenarios by default; or pass@k of the sampled one."""

import time
from pathlib import Path

import msgspec

from rehearsal.cell import read_cell
from rehearsal.config import command_line
from rehearsal.errors import run_command
from rehearsal.results import write_result
from rehearsal.simulation import Split, scenarios
from training.evaluation.success_rate import evaluate_greedy, pass_at_k
from training.policies.token_distribution import Decoding
from training.policies.trained_policy import load_policy
from training.simulators.factory import make_simulator


class EvaluateConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to try, and on what."""

    policy: Path = Path("runs/grpo")
    """A policy's folder or a run's."""
    cell: Path = Path("launch/cells/single_piper.toml")
    n: int = 50
    """Scenarios."""
    split: Split = "held_out"
    decoding: Decoding = "argmax"
    pass_at: int = 0
    """Samples a scenario: pass@k at `temperature` in place of greedy success."""
    temperature: float = 1.6
    seed: int = 0
    """Of the samples."""
    max_worlds: int = 64
    result: Path | None = None
    """A result file to write."""


def main() -> None:
    config = command_line(EvaluateConfig, description=__doc__ or "")
    start = time.monotonic()
    policy, cell = load_policy(config.policy), read_cell(config.cell)
    task, transform = policy.record.task, policy.record.transform
    simulator = make_simulator(
        cell, task, cameras=transform.cameras, side_px=transform.side_px, max_worlds=config.max_worlds
    )
    chosen = scenarios(task, config.split, config.n)
    if config.pass_at:
        options = {"k": config.pass_at, "seed": config.seed}
        found = pass_at_k(simulator, policy, chosen, temperature=config.temperature, **options)
        figures = found.solved.figures(f"{task}.pass_at_{found.k}") | found.sampled.figures(f"{task}.sampled")
        print(f"{task}: pass@{found.k} {found.solved}, sampled {found.sampled}")
        print(found.warning or "", end="\n" if found.warning else "")
    else:
        greedy = evaluate_greedy(simulator, policy, chosen, config.decoding)
        figures = greedy.figures(f"{task}.greedy")
        print(f"{task}: greedy {greedy}")
    simulator.close()
    if config.result:
        seeds = {"scenarios": [chosen[0].seed, chosen[-1].seed], "samples": config.seed}
        write_result(config.result, figures=figures, seeds=seeds, seconds=time.monotonic() - start)


if __name__ == "__main__":
    run_command(main)
