"""Success of the scripted expert on the twin, with its 95 % Wilson interval."""

import time
from pathlib import Path

import msgspec

from rehearsal.cell import read_cell
from rehearsal.config import command_line
from rehearsal.errors import run_command
from rehearsal.results import write_result
from rehearsal.simulation import Split, scenarios
from training.experts.evaluation import evaluate_expert
from training.experts.expert import Expert
from training.simulators.twin.simulator import TwinSimulator


class EvaluateExpertConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to try."""

    cell: Path = Path("launch/cells/single_piper.toml")
    tasks: tuple[str, ...] = ()
    """All tasks of the cell by default."""
    n: int = 200
    """Scenarios a task."""
    split: Split = "held_out"
    max_worlds: int = 64
    result: Path | None = None
    """A result file to write."""


def main() -> None:
    config = command_line(EvaluateExpertConfig, description=__doc__ or "")
    start = time.monotonic()
    figures: dict[str, float] = {}
    cell = read_cell(config.cell)
    for task in config.tasks or cell.tasks:
        simulator = TwinSimulator(cell, task, cameras=(), side_px=16, max_worlds=config.max_worlds)
        found = evaluate_expert(simulator, Expert(cell, task), scenarios(task, config.split, config.n))
        simulator.close()
        figures |= found.figures(f"{task}.expert")
        print(f"{task}: expert {found}, {found.steps:.0f} of {simulator.horizon_steps} steps on average")
    if config.result:
        first = scenarios(task, config.split, config.n)
        write_result(
            config.result,
            figures=figures,
            seeds={"scenarios": [first[0].seed, first[-1].seed]},
            seconds=time.monotonic() - start,
        )


if __name__ == "__main__":
    run_command(main)
