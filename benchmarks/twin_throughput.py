"""Control steps a second of the twin, and the shares of a GRPO rollout; writes results/twin_throughput.json.

Run it on an otherwise idle machine.
"""

from rehearsal.config import command_line
from rehearsal.errors import run_command
from training.studies.twin_throughput import TwinThroughput, run_benchmark


def main() -> None:
    figures = run_benchmark(command_line(TwinThroughput, description=__doc__ or ""))
    for name, value in figures.items():
        print(f"{name}: {value:,.3f}" if value < 1 else f"{name}: {value:,.0f}")


if __name__ == "__main__":
    run_command(main)
