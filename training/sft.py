"""Supervised fine-tuning of the compact policy on demonstrations."""

import logging

from rehearsal.config import command_line
from rehearsal.errors import run_command
from training.imitation.sft_run import SFTRun, run_sft


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    logging.getLogger("training").setLevel(logging.INFO)
    run_sft(command_line(SFTRun, description=__doc__ or ""))


if __name__ == "__main__":
    run_command(main)
