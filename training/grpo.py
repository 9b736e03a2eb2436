"""Reinforcement by GRPO from success alone, beginning with a fine-tuned policy."""

import logging

from rehearsal.config import command_line
from rehearsal.errors import run_command
from training.reinforcement.grpo_run import GRPORun, run_grpo


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    logging.getLogger("training").setLevel(logging.INFO)
    run_grpo(command_line(GRPORun, description=__doc__ or ""))


if __name__ == "__main__":
    run_command(main)
