"""Working fixtures: pulling a drawer open, pushing it shut, turning a knob."""

from collections.abc import Callable

import mujoco
import numpy as np

from training.experts.libero.grasp import pointing_down
from training.experts.libero.motion import (
    CLOSED,
    OPEN,
    TIP_M,
    Pose,
    action,
    action_over,
    clear_height,
    distance,
)
from training.experts.libero.pick_place import Stall, Steps, close_hand
from training.experts.libero.scene import Scene

_VIA_M, _VIA_RAD = 0.03, 0.3
"""How near the hand passes a point on its way."""
_PULL_TILT_RAD = np.deg2rad(80)
"""Tilt of the hand that takes a horizontal handle from the front; upright would be 0."""
_PUSH_TILT_RAD = np.deg2rad(45)
_OPENED_M = 0.155
"""A drawer counts as open from 0.14."""
_STEPS = 150


def tilted(towards: np.ndarray, tilt_rad: float, closing: str) -> np.ndarray:
    """Returns the hand's rotation that points down, tilted to point along `towards` (3,), horizontal.

    closing: `upright`, in the vertical plane of the tilt, or `level`, across it.
    """
    down = np.array([0.0, 0.0, -1.0])
    out = np.sin(tilt_rad) * towards + np.cos(tilt_rad) * down
    if closing == "level":
        along = np.cross(down, towards)
    else:
        along = np.sin(tilt_rad) * down - np.cos(tilt_rad) * towards
    return np.column_stack([along, np.cross(out, along), out])


def go_over(scene: Scene, pose: Pose, gripper: float, *, reached_m: float = _VIA_M) -> Steps:
    """Goes to a pose over everything on the way; ends as soon as it is near."""
    start = scene.hand_position
    travel_z = clear_height(scene.obstacles(), start, pose.position, pose.rotation, below_m=TIP_M)
    stalled = Stall(scene)
    for _ in range(_STEPS):
        left_m, left_rad = distance(scene, pose)
        if (left_m < reached_m and left_rad < _VIA_RAD) or stalled():
            return
        yield action_over(scene, pose, gripper, travel_z=travel_z)


def go(
    scene: Scene, pose: Callable[[], Pose] | Pose, gripper: float, *, reached_m: float, speed: float = 1.0
) -> Steps:
    """Goes straight to a pose; ends when it is near or held up."""
    stalled = Stall(scene)
    for _ in range(_STEPS):
        aim = pose() if callable(pose) else pose
        if distance(scene, aim)[0] < reached_m or stalled():
            return
        yield action(scene, aim, gripper, speed=speed)


class Drawer:
    """A drawer of a cabinet, named by its region."""

    def __init__(self, scene: Scene, region: str) -> None:
        model = scene.model
        self._scene = scene
        self._body = int(model.site_bodyid[scene.site(region)])
        self._joint = int(model.body_jntadr[self._body])
        low, high = model.jnt_range[self._joint]
        self._sign = -1.0 if -low > high else 1.0
        self.outward = np.array(scene.data.xaxis[self._joint]) * self._sign
        geoms = [int(g) for g in scene.solids if int(model.geom_bodyid[g]) == self._body]
        self._bar = max(geoms, key=lambda geom: float(scene.data.geom_xpos[geom] @ self.outward))

    @property
    def opening(self) -> float:
        """How far it is pulled out [m]."""
        return self._sign * float(self._scene.data.qpos[self._scene.model.jnt_qposadr[self._joint]])

    @property
    def handle(self) -> np.ndarray:
        """(3,) middle of the handle's bar."""
        return np.array(self._scene.data.geom_xpos[self._bar])


def open_drawer(scene: Scene, region: str) -> Steps:
    """Takes the bar of the handle between the fingers from the front and pulls."""
    drawer = Drawer(scene, region)
    if drawer.opening > _OPENED_M - 0.01:
        return
    rotation = tilted(-drawer.outward, _PULL_TILT_RAD, "upright")
    if rotation[:, 0] @ scene.hand_rotation[:, 0] < 0:
        rotation = rotation @ np.diag([-1.0, -1.0, 1.0])
    yield from go_over(scene, Pose(drawer.handle + 0.08 * drawer.outward, rotation), OPEN, reached_m=0.035)
    at = Pose(drawer.handle + 0.004 * drawer.outward, rotation)
    yield from go(scene, at, OPEN, reached_m=0.012)
    yield from close_hand(scene, at)
    stalled = Stall(scene)
    for _ in range(_STEPS):
        if drawer.opening > _OPENED_M or stalled():
            break
        ahead = drawer.handle + 0.045 * drawer.outward
        yield action(scene, Pose(ahead, rotation), CLOSED)
    here = scene.hand_position
    for _ in range(4):
        yield action(scene, Pose(here, rotation), OPEN)
    away = Pose(here + 0.07 * drawer.outward + np.array([0, 0, 0.1]), rotation)
    yield from go(scene, away, OPEN, reached_m=0.06)


def close_drawer(scene: Scene, region: str) -> Steps:
    """Pushes the handle with closed fingers until the drawer is in."""
    drawer = Drawer(scene, region)
    rotation = tilted(-drawer.outward, _PUSH_TILT_RAD, "level")
    if rotation[:, 0] @ scene.hand_rotation[:, 0] < 0:
        rotation = rotation @ np.diag([-1.0, -1.0, 1.0])
    before = Pose(drawer.handle + 0.06 * drawer.outward, rotation)
    yield from go_over(scene, before, CLOSED, reached_m=0.035)
    for _ in range(_STEPS):
        if drawer.opening < -0.001:
            return
        yield action(scene, Pose(drawer.handle - 0.05 * drawer.outward, rotation), CLOSED)


def turn_on(scene: Scene, stove: str) -> Steps:
    """Takes the ridge of a stove's knob between the fingers and turns it about its axis."""
    model = scene.model
    body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, f"{stove}_button")
    joint = int(model.body_jntadr[body])
    address = int(model.jnt_qposadr[joint])
    points = scene.body_points({body})
    axis = np.array(scene.data.xanchor[joint])
    ridge = points[points[:, 2] > points[:, 2].max() - 0.025]
    spread = np.linalg.svd(ridge[:, :2] - ridge[:, :2].mean(0), full_matrices=False)[2]
    across = spread[1]
    middle = np.array([*((ridge[:, :2].max(0) + ridge[:, :2].min(0)) / 2), points[:, 2].max() - 0.014])
    angle = float(np.arctan2(across[1], across[0]))
    if pointing_down(angle)[:, 0] @ scene.hand_rotation[:, 0] < 0:
        angle += np.pi
    yield from go_over(scene, Pose(middle, pointing_down(angle)), OPEN, reached_m=0.01)
    yield from close_hand(scene, Pose(middle, pointing_down(angle)))
    start = float(scene.data.qpos[address])
    for _ in range(_STEPS):
        turned = float(scene.data.qpos[address]) - start
        if turned + start > 0.75:
            break
        ahead = turned + 0.5
        turn = np.array([[np.cos(ahead), -np.sin(ahead)], [np.sin(ahead), np.cos(ahead)]])
        place = np.array([*(axis[:2] + turn @ (middle - axis)[:2]), middle[2]])
        yield action(scene, Pose(place, pointing_down(angle + ahead)), CLOSED)
    here = Pose(scene.hand_position, scene.hand_rotation)
    for _ in range(4):
        yield action(scene, here, OPEN)
    yield from go(scene, Pose(here.position + np.array([0, 0, 0.1]), here.rotation), OPEN, reached_m=0.05)
