"""Reinforcement by PPO with a critic of its own (FLaRe), from success alone, beginning with a fine-tuned policy."""

import logging

from rehearsal.config import command_line
from rehearsal.errors import run_command
from training.reinforcement.ppo_run import PPORun, run_ppo


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    logging.getLogger("training").setLevel(logging.INFO)
    run_ppo(command_line(PPORun, description=__doc__ or ""))


if __name__ == "__main__":
    run_command(main)
