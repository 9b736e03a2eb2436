"""Greedy success of a trained policy on the twin or a LIBERO suite, on held-out scenarios by default; or pass@k of the
sampled one; or one of LIBERO's evaluations by name."""

from rehearsal.config import command_line
from rehearsal.errors import run_command
from training.evaluation.evaluate_run import EvaluateRun, run_evaluation


def main() -> None:
    print(run_evaluation(command_line(EvaluateRun, description=__doc__ or "")))


if __name__ == "__main__":
    run_command(main)
