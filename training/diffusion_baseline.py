"""Writes results/diffusion_baseline.json: the diffusion baseline against the compact policy on equal demonstrations."""

from rehearsal.config import command_line
from rehearsal.errors import run_command
from training.studies.diffusion_baseline import DiffusionBaselineStudy, run_study


def main() -> None:
    print("\n".join(run_study(command_line(DiffusionBaselineStudy, description=__doc__ or ""))))


if __name__ == "__main__":
    run_command(main)
