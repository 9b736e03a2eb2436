"""The LIBERO engine beside LIBERO's own environment: speed, shares of time, parity; writes results/libero_engine.json.

Run it on an otherwise idle machine; it takes about a quarter of an hour.
"""

from rehearsal.config import command_line
from rehearsal.errors import run_command
from training.studies.libero_engine import LiberoEngineStudy, run_study, shortfall


def main() -> None:
    figures = run_study(command_line(LiberoEngineStudy, description=__doc__ or ""))
    for name, value in figures.items():
        print(f"{name}: {value:.4g}")
    print(shortfall(figures) or "Nothing falls short.")


if __name__ == "__main__":
    run_command(main)
