"""Demonstrations of one task by the scripted expert, as a LeRobot dataset; interrupted, it goes on when run again."""

from rehearsal.config import command_line
from rehearsal.errors import run_command
from training.experts.collection import CollectConfig, collect


def main() -> None:
    print(collect(command_line(CollectConfig, description=__doc__ or "")))


if __name__ == "__main__":
    run_command(main)
