"""How fast the engine plays beside the stock environment, and where its time goes.

All that is compared runs in turn on one core, pinned to it, several times over; the median is kept. Stock renders two
pictures at every control step; the engine one a chunk, or two (`two_cameras`).
"""

import copy
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np

from rehearsal.simulation import scenarios
from training.simulators.libero.engine import SUBSTEPS, World, play, settle, world_views
from training.simulators.libero.package import LiberoTask
from training.simulators.libero.scene import LiberoScene, Physics, load_scene
from training.simulators.libero.simulator import WAITING_STEPS, LiberoSimulator
from training.studies.libero_stock import StockWorld, stock_world

CHUNK_STEPS = 8
SETTINGS: tuple[Physics, ...] = ("exact", "fast")
CAMERA_SETS = {"": ("agentview",), "_two_cameras": ("agentview", "wrist")}


class TimedSimulator(LiberoSimulator):
    """Notes the seconds that native physics and rendering take; right for one thread."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, threads=1, stop_at_success=False, **options)
        self.seconds = {"physics": 0.0, "rendering": 0.0}
        draw = self._pictures.draw

        def timed(worlds: Sequence[Any]) -> dict[str, np.ndarray]:
            start = time.perf_counter()
            found = draw(worlds)
            self.seconds["rendering"] += time.perf_counter() - start
            return found

        self._pictures.draw = timed  # type: ignore[method-assign]

    def _play(self, slot: Any, actions: np.ndarray) -> tuple[int, int]:
        start = time.perf_counter()
        found = super()._play(slot, actions)
        self.seconds["physics"] += time.perf_counter() - start
        return found


@dataclass
class Timing:
    """Of the engine, a control step: all [ms] of each repeat, and of it what is physics and what rendering."""

    total: list[float] = field(default_factory=list)
    physics: list[float] = field(default_factory=list)
    rendering: list[float] = field(default_factory=list)


@contextmanager
def one_core() -> Iterator[None]:
    """Keeps this thread, and those that it starts, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def measure_speed(
    task: LiberoTask, actions: np.ndarray, *, side_px: int, repeats: int, done: Callable[[], None]
) -> dict[str, float]:
    """Returns the figures of the same episode in all of them; actions (T, 7), from stored state 0.

    done: called after each of `runs` runs.
    """
    stock_ms: list[float] = []
    timings: dict[str, Timing] = {}
    actions = actions[: len(actions) // CHUNK_STEPS * CHUNK_STEPS]
    with one_core(), stock_world(task, observed_px=side_px) as stock, ExitStack() as opened:
        simulators = {
            f"{physics}{name}": _open(opened, task, physics, cameras, side_px)
            for physics in SETTINGS
            for name, cameras in CAMERA_SETS.items()
        }
        for repeat in range(-1, repeats):  # the first only warms up
            warm_up = repeat < 0
            found_ms = _play_stock(stock, actions[:CHUNK_STEPS] if warm_up else actions)
            if not warm_up:
                stock_ms.append(found_ms)
            done()
            for name, simulator in simulators.items():
                _play_ours(
                    simulator, task, actions, Timing() if warm_up else timings.setdefault(name, Timing())
                )
                done()
    figures = {"stock_ms_per_step": float(np.median(stock_ms))}
    for name, timing in timings.items():
        figures |= _figures(name, timing, figures["stock_ms_per_step"])
    return figures


def runs(repeats: int) -> int:
    """Returns how many runs `measure_speed` makes."""
    return (repeats + 1) * (1 + len(SETTINGS) * len(CAMERA_SETS))


def _figures(name: str, timing: Timing, stock_ms: float) -> dict[str, float]:
    total = float(np.median(timing.total))
    figures = {f"{name}_ms_per_step": total, f"speedup_{name}": stock_ms / total}
    shares = {
        part: float(np.median(np.divide(getattr(timing, part), timing.total)))
        for part in ("physics", "rendering")
    }
    shares["python"] = 1.0 - sum(shares.values())
    return figures | {f"share_{part}_{name}": share for part, share in shares.items()}


def _open(
    opened: ExitStack, task: LiberoTask, physics: Physics, cameras: tuple[str, ...], side_px: int
) -> TimedSimulator:
    simulator = TimedSimulator(
        task.suite, [task.number], cameras=cameras, side_px=side_px, max_worlds=1, physics=physics
    )
    opened.callback(simulator.close)
    return simulator


def _play_stock(stock: StockWorld, actions: np.ndarray) -> float:
    """Returns milliseconds a control step."""
    stock.begin(0)
    start = time.perf_counter()
    for action in actions:
        stock.step(action)
    return 1000 * (time.perf_counter() - start) / len(actions)


def _play_ours(simulator: TimedSimulator, task: LiberoTask, actions: np.ndarray, timing: Timing) -> None:
    simulator.reset(scenarios(task.task, "stored", 1))
    simulator.seconds = dict.fromkeys(simulator.seconds, 0.0)
    start = time.perf_counter()
    for first in range(0, len(actions), CHUNK_STEPS):
        simulator.observe([0])
        simulator.step([0], actions[None, first : first + CHUNK_STEPS])
    to_ms = 1000 / len(actions)
    timing.total.append(to_ms * (time.perf_counter() - start))
    timing.physics.append(to_ms * simulator.seconds["physics"])
    timing.rendering.append(to_ms * simulator.seconds["rendering"])


def measure_physics(
    task: LiberoTask, actions: np.ndarray, *, repeats: int, done: Callable[[], None]
) -> dict[str, float]:
    """Returns what physics, control and goal cost together, in units of MuJoCo's own step with the same options.

    Both pass through the same states of the same episode: `play` over whole chunks; the bare loop of mj_step over
    each of their control steps from its own state, controls held. done: called after each of 2 x repeats passes.
    """
    figures = {}
    with one_core():
        for physics in SETTINGS:
            scene = load_scene(task, physics)
            passes = _Passes(scene, actions[: len(actions) // CHUNK_STEPS * CHUNK_STEPS])
            passes.measure()  # warms up
            played, bare = [], []
            for _ in range(repeats):
                found = passes.measure()
                played.append(found[0])
                bare.append(found[1])
                done()
            share = np.median(played, axis=0).sum() / np.median(bare, axis=0).sum()
            figures[f"physics_over_bare_{physics}"] = float(share)
            per_step_ms = 1000 * np.median(bare, axis=0).sum() / (CHUNK_STEPS * len(passes.chunks))
            figures[f"bare_{physics}_ms_per_step"] = float(per_step_ms)
    figures["physics_over_bare"] = max(figures[f"physics_over_bare_{physics}"] for physics in SETTINGS)
    return figures


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """A chunk and the states that lead through it: `remembered` by the World at its start, `data` at each step's."""

    actions: np.ndarray
    remembered: tuple[np.ndarray, ...]
    data: list[mujoco.MjData]


class _Passes:
    """An episode that can be played again piece by piece from the same states."""

    def __init__(self, scene: LiberoScene, actions: np.ndarray) -> None:
        """Plays the episode once from stored state 0 and keeps the state before every control step."""
        self._scene = scene
        self._data = mujoco.MjData(scene.model)
        self._world = world_views(scene.model, self._data, scene.goal.pairs)
        _begin(scene, self._data, self._world)
        self.chunks = []
        for chunk in actions.reshape(-1, CHUNK_STEPS, actions.shape[1]):
            remembered = tuple(array.copy() for array in _memory(self._world))
            data = []
            for action in chunk:
                data.append(copy.copy(self._data))
                play(self._world, scene.arm, scene.goal, action[None], False)
            self.chunks.append(_Chunk(actions=chunk.copy(), remembered=remembered, data=data))

    def measure(self) -> tuple[list[float], list[float]]:
        """Returns seconds of `play` and of the bare loop, one of each a chunk."""
        scene, model, data = self._scene, self._scene.model, self._data
        played, bare = [], []
        for chunk in self.chunks:
            # mj_copyData leaves the arrays where they are, so the World's views stay right.
            mujoco.mj_copyData(data, model, chunk.data[0])
            for array, before in zip(_memory(self._world), chunk.remembered, strict=True):
                array[:] = before
            start = time.perf_counter()
            play(self._world, scene.arm, scene.goal, chunk.actions, False)
            played.append(time.perf_counter() - start)
            seconds = 0.0
            for state in chunk.data:
                mujoco.mj_copyData(data, model, state)
                start = time.perf_counter()
                mujoco.mj_step(model, data, SUBSTEPS)
                seconds += time.perf_counter() - start
            bare.append(seconds)
        return played, bare


def _memory(world: World) -> tuple[np.ndarray, ...]:
    """Returns what a World holds beside its mjData."""
    return world.goal_position, world.goal_rotation, world.fingers, world.touching


def _begin(scene: LiberoScene, data: mujoco.MjData, world: World) -> None:
    data.qpos[:], data.qvel[:] = scene.initial_state(scenarios(scene.task.task, "stored", 1)[0])
    mujoco.mj_forward(scene.model, data)
    world.goal_position[:] = scene.record.home_position_m
    world.goal_rotation[:] = scene.record.home_rotation
    settle(world, scene.arm, scene.goal, WAITING_STEPS)
