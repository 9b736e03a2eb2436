"""Writes results/twin_tasks.json and results/twin_learning_curves.json from the runs of launch/twin_tasks.sh."""

from rehearsal.config import command_line
from rehearsal.errors import run_command
from training.studies.twin_tasks import TwinTasksStudy, run_study


def main() -> None:
    print("\n".join(run_study(command_line(TwinTasksStudy, description=__doc__ or ""))))


if __name__ == "__main__":
    run_command(main)
