"""Says what a folder holds - a policy, run, bundle or published checkpoint - and what can be done with it."""

from rehearsal.config import command_line
from rehearsal.errors import run_command
from training.policies.inspection_run import InspectCheckpoint, inspect_checkpoint


def main() -> None:
    print(inspect_checkpoint(command_line(InspectCheckpoint, description=__doc__ or "")))


if __name__ == "__main__":
    run_command(main)
