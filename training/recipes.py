"""Compares recipes of reinforcement at an equal budget of control steps; writes results/recipes.json and its curves."""

import logging

from rehearsal.config import command_line
from rehearsal.errors import run_command
from training.studies.recipes import RecipesStudy, run_study


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    logging.getLogger("training").setLevel(logging.INFO)
    print("\n".join(run_study(command_line(RecipesStudy, description=__doc__ or ""))))


if __name__ == "__main__":
    run_command(main)
