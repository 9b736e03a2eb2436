"""Writes results/libero_training.json and libero_learning_curves.json from the runs of launch/libero_training.sh."""

from rehearsal.config import command_line
from rehearsal.errors import run_command
from training.studies.libero_training import LiberoTrainingStudy, run_study


def main() -> None:
    print("\n".join(run_study(command_line(LiberoTrainingStudy, description=__doc__ or ""))))


if __name__ == "__main__":
    run_command(main)
