"""Tries a served policy on a cell: `python deploy/run_trials.py --n 50` tries what the policy server serves.

Every trial is logged as it ends; interrupted, the same command goes on. At the end stands the success rate with
its 95 % interval, and a report.
"""

from deploy.trial_runner import TrialsConfig, run
from rehearsal.config import command_line
from rehearsal.errors import run_command


def main() -> int:
    return run(command_line(TrialsConfig, description=__doc__ or ""))


if __name__ == "__main__":
    run_command(main)
