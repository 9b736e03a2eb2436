"""The cells that the guard's tests run in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from rehearsal.cell import Cell, CheckName, Guard, read_cell

CELLS = Path(__file__).parents[3] / "launch" / "cells"


@pytest.fixture(scope="session")
def make_cell() -> Callable[..., Cell]:
    """Returns a function that makes a cell with some fields of its guard, the defaults for all others.

    only: the names of the checks that stay armed; without it all do.
    """

    def make(name: str = "single_piper", *, only: tuple[CheckName, ...] | None = None, **guard: Any) -> Cell:
        every: tuple[CheckName, ...] = CheckName.__args__  # type: ignore[attr-defined]
        disarmed = () if only is None else tuple(check for check in every if check not in only)
        cell = read_cell(CELLS / f"{name}.toml")
        return msgspec.structs.replace(cell, guard=Guard(disarmed=disarmed, **guard))

    return make


@pytest.fixture(scope="session")
def home() -> Callable[[Cell], np.ndarray]:
    """Returns the function that gives a cell's home pose (A,)."""

    def pose(cell: Cell) -> np.ndarray:
        return np.concatenate([[*arm.home_joint_rad, arm.home_gripper_opening_m] for arm in cell.arms])

    return pose
