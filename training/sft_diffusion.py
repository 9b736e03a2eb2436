"""Supervised training of the diffusion baseline, a small RDT, on demonstrations."""

import logging

from rehearsal.config import command_line
from rehearsal.errors import run_command
from training.imitation.sft_diffusion_run import DiffusionRun, run_sft_diffusion


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    logging.getLogger("training").setLevel(logging.INFO)
    run_sft_diffusion(command_line(DiffusionRun, description=__doc__ or ""))


if __name__ == "__main__":
    run_command(main)
