"""The four tasks, after the real-world ones of SimpleVLA-RL (Li et al. 2025): what is on the table, where it may
start, how the instruction may be worded, when it has succeeded, and how long it may take.

Success is judged on the state alone: vectorised over the control steps of an episode, the same for every world.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import mujoco
import numpy as np

from rehearsal.cell import Cell
from rehearsal.errors import unknown_choice
from training.simulators.twin import objects


@dataclass(frozen=True, kw_only=True)
class SceneState:
    """What a success criterion may look at, for one moment of one world, frames in the world [m].

    position: object -> (3,). up: object -> (3,), the object's z axis. speed: object -> [m/s].
    button: bell button travel [m]. opening: (arms,) gripper openings [m]. tool: (arms, 3).
    """

    position: Mapping[str, np.ndarray]
    up: Mapping[str, np.ndarray]
    speed: Mapping[str, float]
    button: float
    opening: np.ndarray
    tool: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task. `place` draws object -> (x, y) in the acting arm's region; `criterion` is `succeeded` in words."""

    name: str
    criterion: str
    instructions: tuple[str, ...]
    horizon_steps: int
    free: tuple[str, ...]
    fixed: tuple[str, ...]
    build: Callable[[mujoco.MjSpec], None]
    place: Callable[[np.random.Generator, Cell], dict[str, tuple[float, float]]]
    succeeded: Callable[[SceneState], bool]


# Middle of the region in front of an arm's base, in which objects start [m]; all of it can be reached from above.
REGION_X_M = 0.33


def _region(rng: np.random.Generator, cell: Cell) -> tuple[float, float]:
    """Returns x and y uniform in the cell's object range, relative to the region's middle."""
    half_x, half_y = cell.randomisation.object_position_m
    return rng.uniform(-half_x, half_x), rng.uniform(-half_y, half_y)


def _place_one(name: str) -> Callable[[np.random.Generator, Cell], dict[str, tuple[float, float]]]:
    def place(rng: np.random.Generator, cell: Cell) -> dict[str, tuple[float, float]]:
        x, y = _region(rng, cell)
        return {name: (REGION_X_M + x, y)}

    return place


def _place_pair(
    left: str, right: str, *, gap_m: float, spread: float
) -> Callable[[np.random.Generator, Cell], dict[str, tuple[float, float]]]:
    """Two objects, one in each half of the region; their middles are at least `gap_m` apart.

    `spread` is the share of the region's width in which each may stand.
    """

    def place(rng: np.random.Generator, cell: Cell) -> dict[str, tuple[float, float]]:
        places = {}
        for name, side in ((left, 1), (right, -1)):
            x, y = _region(rng, cell)
            middle = gap_m / 2 + spread * cell.randomisation.object_position_m[1]
            places[name] = (REGION_X_M + x, side * middle + spread * y)
        return places

    return place


def _bell_rung(s: SceneState) -> bool:
    return s.button > 0.6 * objects.BELL_TRAVEL_M


def _bottle_lifted(s: SceneState) -> bool:
    neck = s.position["bottle"] + objects.BOTTLE_NECK_M * s.up["bottle"]
    held = (np.linalg.norm(s.tool - neck, axis=-1) < 0.06) & (s.opening < 0.05)
    return bool(s.position["bottle"][2] > 0.08 and s.up["bottle"][2] > 0.8 and np.any(held))


def _cup_placed(s: SceneState) -> bool:
    offset = np.hypot(*(s.position["cup"][:2] - s.position["coaster"][:2]))
    on_top = abs(s.position["cup"][2] - objects.COASTER_HEIGHT_M) < 0.004
    resting = s.up["cup"][2] > 0.97 and s.speed["cup"] < 0.05
    return bool(offset < 0.03 and on_top and resting and _released(s, "cup", 0.02))


def _bowls_stacked(s: SceneState) -> bool:
    upper, lower = s.position["bowl"], s.position["target_bowl"]
    nested = np.hypot(*(upper[:2] - lower[:2])) < 0.02 and 0.008 < upper[2] - lower[2] < 0.027
    upright = s.up["bowl"][2] > 0.95 and s.up["target_bowl"][2] > 0.95
    return bool(nested and upright and s.speed["bowl"] < 0.05 and _released(s, "bowl", 0.0))


def _released(s: SceneState, name: str, clearance_m: float) -> bool:
    """Whether no gripper holds the object: each is open wide, or further than 12 cm away."""
    away = np.linalg.norm(s.tool - s.position[name], axis=-1) > 0.12
    return bool(np.all(away | (s.opening > 0.045 + clearance_m / 2)))


def _build_bell(spec: mujoco.MjSpec) -> None:
    objects.add_bell(spec, "bell")


def _build_bottle(spec: mujoco.MjSpec) -> None:
    objects.add_bottle(spec, "bottle")


def _build_cup(spec: mujoco.MjSpec) -> None:
    objects.add_coaster(spec, "coaster")
    objects.add_cup(spec, "cup")


def _build_bowls(spec: mujoco.MjSpec) -> None:
    objects.add_bowl(spec, "bowl", (0.85, 0.45, 0.15))
    objects.add_bowl(spec, "target_bowl", (0.25, 0.50, 0.70))


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="click_bell",
            criterion="the bell's button has been pressed to 60 % of its 8 mm travel",
            instructions=("click the bell", "press the bell", "ring the desk bell", "push the button of the bell"),
            horizon_steps=80,
            free=(),
            fixed=("bell",),
            build=_build_bell,
            place=_place_one("bell"),
            succeeded=_bell_rung,
        ),
        Task(
            name="pick_bottle",
            criterion="a gripper holds the bottle, its foot over 8 cm above the table, within 37 degrees of upright",
            instructions=("pick up the bottle", "grasp the bottle and lift it", "lift the bottle", "take the bottle"),
            horizon_steps=80,
            free=("bottle",),
            fixed=(),
            build=_build_bottle,
            place=_place_one("bottle"),
            succeeded=_bottle_lifted,
        ),
        Task(
            name="place_empty_cup",
            criterion="the cup stands still on the coaster, within 3 cm of its middle, and the gripper has let go",
            instructions=(
                "place the empty cup on the coaster",
                "put the cup on the coaster",
                "set the empty cup down on the coaster",
                "move the cup onto the coaster",
            ),
            horizon_steps=120,
            free=("cup",),
            fixed=("coaster",),
            build=_build_cup,
            place=_place_pair("cup", "coaster", gap_m=0.075, spread=0.4),
            succeeded=_cup_placed,
        ),
        Task(
            name="stack_bowls",
            criterion="the orange bowl stands in the blue one, middles within 2 cm, and the gripper has let go",
            instructions=(
                "stack the bowls",
                "put the orange bowl into the blue bowl",
                "stack the orange bowl on the blue one",
                "place one bowl in the other",
            ),
            horizon_steps=140,
            free=("bowl", "target_bowl"),
            fixed=(),
            build=_build_bowls,
            place=_place_pair("bowl", "target_bowl", gap_m=0.125, spread=0.25),
            succeeded=_bowls_stacked,
        ),
    )
}


def task_named(name: str) -> Task:
    """Returns a task; raises RehearsalError with the valid names."""
    if name not in TASKS:
        raise unknown_choice("task", name, TASKS)
    return TASKS[name]
