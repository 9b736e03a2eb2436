"""Makes the simulator of a cell; scripts and learners know the VectorSimulator interface alone."""

from collections.abc import Sequence

from rehearsal.cell import Cell
from rehearsal.simulation import VectorSimulator


def make_simulator(
    cell: Cell, task: str, *, cameras: Sequence[str], side_px: int, max_worlds: int, threads: int | None = None
) -> VectorSimulator:
    """Returns the twin of `cell`; threads: default, one a core. Raises RehearsalError for an unknown task or camera."""
    # Imported here, so that learning on another simulator needs no MuJoCo.
    from training.simulators.twin.simulator import TwinSimulator

    return TwinSimulator(
        cell, cell.check_task(task), cameras=cameras, side_px=side_px, max_worlds=max_worlds, threads=threads
    )
