"""A microwave that opens at the front: a mug goes in by its handle, the door is pushed shut."""

import mujoco
import numpy as np

from training.experts.libero.fixtures import go, go_over, tilted
from training.experts.libero.grasp import pointing_down
from training.experts.libero.motion import CLOSED, OPEN, Pose, action
from training.experts.libero.pick_place import Stall, Steps, close_hand
from training.experts.libero.scene import Scene

_TILT_RAD = np.deg2rad(60)
"""Tilt of the hand that holds a mug by its handle: the palm stays before the microwave, the wrist above the table."""
_LIFT_M, _PUT_M = 0.02, 0.004
_DEPTH_M = -0.02
"""Where the mug goes, from the middle of the region towards the back."""
_LEVER_M = 0.11
"""Where the door is pushed, from its hinge: the palm fits between hinge and handle."""
_DOOR_M, _PALM_M = 0.027, 0.034
"""Thickness of the door; half that of the hand."""
_RETREAT_M = 0.28
"""How far the hand backs out before it rises: beyond the edge of the open door."""
_AHEAD_RAD = 0.35
_STEPS = 200


def inward(scene: Scene, microwave: str) -> np.ndarray:
    """Returns the direction (3,) from the front of a microwave to its back."""
    return scene.rotation(microwave)[:, 1]


def place_in_microwave(scene: Scene, name: str, region: str) -> Steps:
    """Takes a mug by the handle that points away from the microwave, lifts it in, puts it down."""
    microwave = scene.parent(region)
    back = inward(scene, microwave)
    rotation = tilted(back, _TILT_RAD, "level")
    if rotation[:, 0] @ scene.hand_rotation[:, 0] < 0:
        rotation = rotation @ np.diag([-1.0, -1.0, 1.0])
    reaching = rotation[:, 2]
    points, origin = scene.points(name), scene.position(name)
    front = (points - origin) @ -back
    handle = points[front > front.max() - 0.012]
    grip = (handle.max(axis=0) + handle.min(axis=0)) / 2 + 0.004 * reaching
    yield from go_over(scene, Pose(grip - 0.07 * reaching, rotation), OPEN, reached_m=0.02)
    yield from go(scene, Pose(grip, rotation), OPEN, reached_m=0.01)
    yield from close_hand(scene, Pose(grip, rotation))
    held = scene.hand_position - scene.position(name)
    place = _place(scene, microwave, region, back)
    lifted = scene.position(name) + 0.03 * back
    lifted[2] = place[2] + _LIFT_M
    yield from go(scene, Pose(lifted + held, rotation), CLOSED, reached_m=0.03)
    for height in (_LIFT_M, _PUT_M):
        yield from go(
            scene, Pose(place + held + np.array([0.0, 0.0, height]), rotation), CLOSED, reached_m=0.012
        )
    here = scene.hand_position
    for _ in range(5):
        yield action(scene, Pose(here, rotation), OPEN)
    yield from go(scene, Pose(here - 0.10 * back, rotation), OPEN, reached_m=0.04)
    upright = pointing_down(float(np.arctan2(rotation[1, 0], rotation[0, 0])))
    clear = here - _RETREAT_M * back + np.array([0.0, 0.0, 0.1])
    yield from go(scene, Pose(clear, upright), OPEN, reached_m=0.05)


def _place(scene: Scene, microwave: str, region: str, back: np.ndarray) -> np.ndarray:
    """Returns where a mug's origin goes (3,): on the floor, in the middle between the side walls."""
    middle = scene.position(region)
    side = np.cross(back, [0.0, 0.0, 1.0])
    offset = scene.points(microwave) - middle
    depth, across, up = offset @ back, offset @ side, offset[:, 2]
    level = (np.abs(depth) < 0.06) & (np.abs(up) < 0.04)
    walls = np.sort(across[level])
    gap = int(np.argmax(np.diff(walls)))
    centre = (walls[gap] + walls[gap + 1]) / 2
    floor = offset[(np.abs(depth) < 0.06) & (np.abs(across - centre) < 0.05) & (up < 0), 2].max()
    return np.asarray(middle + _DEPTH_M * back + centre * side + np.array([0.0, 0.0, floor]))


def close_door(scene: Scene, microwave: str) -> Steps:
    """Pushes the door from outside, near its hinge, until it is shut."""
    model = scene.model
    body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, f"{microwave}_microdoorroot")
    joint = int(model.body_jntadr[body])
    address = int(model.jnt_qposadr[joint])
    hinge = np.array(scene.data.xanchor[joint])
    frame = scene.rotation(microwave)

    def pose(angle: float, clear_m: float) -> Pose:
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        along, out = turn @ frame[:, 0], -(turn @ frame[:, 1])
        place = hinge + _LEVER_M * along + (_DOOR_M + _PALM_M + clear_m) * out + np.array([0.0, 0.0, 0.03])
        rotation = pointing_down(float(np.arctan2(along[1], along[0])))
        if rotation[:, 0] @ scene.hand_rotation[:, 0] < 0:
            rotation = rotation @ np.diag([-1.0, -1.0, 1.0])
        return Pose(place, rotation)

    angle = float(scene.data.qpos[address])
    yield from go_over(scene, pose(angle, 0.03), CLOSED, reached_m=0.02)
    stalled = Stall(scene)
    for _ in range(_STEPS):
        angle = float(scene.data.qpos[address])
        if angle > -0.002 or stalled():
            break
        yield action(scene, pose(min(angle + _AHEAD_RAD, 0.15), -0.01), CLOSED)
