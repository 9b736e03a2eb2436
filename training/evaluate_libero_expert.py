"""Success of LIBERO's scripted expert from the stored initial states, task by task."""

from rehearsal.config import command_line
from rehearsal.errors import run_command
from training.studies.libero_expert import LiberoExpertStudy, run_study


def main() -> None:
    run_study(command_line(LiberoExpertStudy, description=__doc__ or ""))


if __name__ == "__main__":
    run_command(main)
