"""One world of LIBERO, advanced by native code that holds no Python lock: control, physics and goal in one loop.

A control step is 25 substeps of 2 ms. robosuite's environment passes three times through the physics in each (two
forward passes for the controller, one step); here one pass is split in its middle (mj_step1, torques, mj_step2).
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import mujoco
import numpy as np
from numba import njit, types

from rehearsal.errors import RehearsalError
from training.simulators.libero.controller import ArmModel, arm_torques, move_fingers, set_goal
from training.simulators.libero.goal import Goal, reached, update_touching
from training.simulators.libero.mjdata_layout import contact_layout

SUBSTEPS = 25
"""Physics steps of 2 ms in a control step of 50 ms."""


@cache
def _bind_mujoco() -> Path:
    """Makes libmujoco's functions known to compiled code; returns the library's file."""
    folder = Path(mujoco.__file__).parent
    libraries = sorted(folder.glob(f"libmujoco*{mujoco.__version__}*"))
    if not libraries:
        raise RehearsalError(
            f"no libmujoco of version {mujoco.__version__} in {folder}; install mujoco again"
        )
    library = ctypes.CDLL(str(libraries[0]))
    for name in ("mj_step1", "mj_step2"):
        llvm.add_symbol(name, ctypes.cast(getattr(library, name), ctypes.c_void_p).value)
    return libraries[0]


_bind_mujoco()
_step1: Any = types.ExternalFunction("mj_step1", types.void(types.intp, types.intp))
_step2: Any = types.ExternalFunction("mj_step2", types.void(types.intp, types.intp))


class World(NamedTuple):
    """Views on one mjData, and what the controller and the goal remember.

    model, data: addresses. contact_pointer: int64 (1,), contact_count: int32 (1,), both within the struct; arena:
    int32, the memory that contacts are in, from `arena_start` on. goal_position: (3,) [m]; goal_rotation: (9,);
    fingers: (2,), targets in [-1, 1]; touching: uint8 (P,).
    """

    model: int
    data: int
    qpos: np.ndarray
    qvel: np.ndarray
    ctrl: np.ndarray
    mass: np.ndarray
    bias: np.ndarray
    axes: np.ndarray
    anchors: np.ndarray
    xpos: np.ndarray
    site_xpos: np.ndarray
    site_xmat: np.ndarray
    body_awake: np.ndarray
    contact_count: np.ndarray
    contact_pointer: np.ndarray
    arena: np.ndarray
    arena_start: int
    goal_position: np.ndarray
    goal_rotation: np.ndarray
    fingers: np.ndarray
    touching: np.ndarray


def world_views(model: mujoco.MjModel, data: mujoco.MjData, pairs: int) -> World:
    """Returns the views; they live as long as `data` does, which the caller keeps."""
    layout = contact_layout()
    mujoco.mj_forward(model, data)
    pointer = np.ctypeslib.as_array((ctypes.c_int64 * 1).from_address(data._address + layout.pointer))
    # Contacts lie at the start of the arena, wherever that was allocated.
    words = (ctypes.c_int32 * (model.narena // 4)).from_address(int(pointer[0]))
    return World(
        model=model._address,
        data=data._address,
        qpos=data.qpos,
        qvel=data.qvel,
        ctrl=data.ctrl,
        mass=data.M,
        bias=data.qfrc_bias,
        axes=data.xaxis,
        anchors=data.xanchor,
        xpos=data.xpos,
        site_xpos=data.site_xpos,
        site_xmat=data.site_xmat,
        body_awake=data.body_awake,
        contact_count=np.ctypeslib.as_array((ctypes.c_int32 * 1).from_address(data._address + layout.number)),
        contact_pointer=pointer,
        arena=np.ctypeslib.as_array(words),
        arena_start=int(pointer[0]),
        goal_position=np.zeros(3),
        goal_rotation=np.zeros(9),
        fingers=np.zeros(2),
        touching=np.zeros(pairs, np.uint8),
    )


_LAYOUT = contact_layout()
_WORDS_A_CONTACT, _GEOM_WORD = _LAYOUT.size // 4, _LAYOUT.geoms // 4


@njit(nogil=True, cache=True)
def contact_geoms(world: World) -> np.ndarray:
    """Returns int32 (ncon, 2): the geoms of each contact."""
    count = world.contact_count[0]
    start = (world.contact_pointer[0] - world.arena_start) // 4
    found = np.empty((count, 2), np.int32)
    for i in range(count):
        at = start + i * _WORDS_A_CONTACT + _GEOM_WORD
        found[i, 0], found[i, 1] = world.arena[at], world.arena[at + 1]
    return found


@njit(nogil=True, cache=True)
def note_contacts(world: World, goal: Goal) -> None:
    """Brings the memory of what touches up to date."""
    if goal.sides.shape[0]:
        update_touching(goal, world.body_awake, contact_geoms(world), world.touching)


@njit(nogil=True, cache=True)
def _torques(world: World, arm: ArmModel) -> None:
    arm_torques(
        arm,
        world.qpos,
        world.qvel,
        world.mass,
        world.bias,
        world.axes,
        world.anchors,
        world.site_xpos[arm.grip_site],
        world.site_xmat[arm.grip_site],
        world.goal_position,
        world.goal_rotation,
        world.ctrl,
    )


@njit(nogil=True, cache=True)
def play(
    world: World, arm: ArmModel, goal: Goal, actions: np.ndarray, stop_at_success: bool
) -> tuple[int, int]:
    """Plays actions (T, 7); returns (control steps taken, the 1-based one that first reached the goal, or 0)."""
    first = 0
    taken = 0
    for t in range(actions.shape[0]):
        for substep in range(SUBSTEPS):
            _step1(world.model, world.data)
            if substep == 0:
                position, rotation = world.site_xpos[arm.grip_site], world.site_xmat[arm.grip_site]
                set_goal(actions[t, :6], position, rotation, world.goal_position, world.goal_rotation)
            _torques(world, arm)
            move_fingers(arm, actions[t, 6], world.fingers, world.ctrl)
            _step2(world.model, world.data)
        taken += 1
        note_contacts(world, goal)
        if (
            reached(goal, world.qpos, world.xpos, world.site_xpos, world.site_xmat, world.touching)
            and first == 0
        ):
            first = taken
            if stop_at_success:
                break
    return taken, first


@njit(nogil=True, cache=True)
def settle(world: World, arm: ArmModel, goal: Goal, steps: int) -> None:
    """Waits `steps` control steps with the gripper opening, from a state that was just set.

    robosuite's controller does not notice that a state was set: its first command goes to where the end effector was
    before, at home, and its first torques are those of standing there. So here: the caller gives home as the goal.
    """
    waiting = np.zeros((1, 7))
    waiting[0, 6] = -1.0
    for substep in range(SUBSTEPS):
        _step1(world.model, world.data)
        if substep == 0:
            for j in range(len(arm.dofs)):
                torque = world.bias[arm.dofs[j]]
                world.ctrl[arm.actuators[j]] = min(max(torque, arm.torque[0, j]), arm.torque[1, j])
        else:
            _torques(world, arm)
        move_fingers(arm, waiting[0, 6], world.fingers, world.ctrl)
        _step2(world.model, world.data)
    note_contacts(world, goal)
    for _ in range(steps - 1):
        play(world, arm, goal, waiting, False)
