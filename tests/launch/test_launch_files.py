"""What lies in `launch/` can be used: cell files are read, and the shell accepts the scripts."""

import subprocess
from pathlib import Path

import pytest

from rehearsal.cell import read_cell

LAUNCH = Path(__file__).parents[2] / "launch"
CELLS = sorted((LAUNCH / "cells").glob("*.toml"))
SCRIPTS = sorted(LAUNCH.glob("*.sh"))


def test_the_files_are_found() -> None:
    assert {"single_piper", "dual_piper"} <= {path.stem for path in CELLS}
    assert {"bootstrap", "quickstart", "test"} <= {path.stem for path in SCRIPTS}


@pytest.mark.parametrize("path", CELLS, ids=lambda path: path.stem)
def test_a_cell_file_describes_a_cell(path: Path) -> None:
    cell = read_cell(path)
    assert cell.name == path.stem
    assert cell.action_spec().dim == 7 * len(cell.arms)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_valid_shell_and_executable(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert path.stat().st_mode & 0o100
