"""Taking an object and putting it somewhere: closed loop, one flow, a stop only where the fingers close."""

from collections.abc import Callable, Generator

import numpy as np

from training.experts.libero.grasp import Grasp, choose_grasp
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
from training.experts.libero.scene import Scene

Steps = Generator[np.ndarray, None, None]
"""A skill: yields one action (7,) a control step until it is done."""

Place = Callable[[float], np.ndarray]
"""Where the origin of a held object is to go (3,) [m], from how far the hand is above that origin [m]."""

_REACHED_M = 0.010
_REACHED_RAD = 0.12
_CLOSE_STEPS = (5, 14)
"""Least and most control steps of closing: the command travels its range in 8 and the fingers lag by 2."""
_LOST_M = 0.03
_ATTEMPTS = 4
_REACH_STEPS, _CARRY_STEPS = 120, 200
_STALL_M = 0.0015
"""A hand that moves less than this in each of `_STALL_STEPS` is held up by something."""
_STALL_STEPS = 4


class Stall:
    """Tells when the hand no longer gets on."""

    def __init__(self, scene: Scene) -> None:
        self._scene, self._last, self._count = scene, scene.hand_position, -_STALL_STEPS

    def __call__(self) -> bool:
        here = self._scene.hand_position
        self._count = self._count + 1 if np.linalg.norm(here - self._last) < _STALL_M else 0
        self._last = here
        return self._count >= _STALL_STEPS


def grasp_object(scene: Scene, name: str, place: Place | None = None) -> Steps:
    """Goes to an object, closes the hand on it; goes at it from elsewhere when something is in the way."""
    tried: list[Grasp] = []
    for _ in range(_ATTEMPTS):
        grasp = choose_grasp(scene, name, tried=tried, place=place)
        tried.append(grasp)
        if (yield from _reach_for(scene, name, grasp, place)):
            break
    yield from close_hand(scene, Pose(*grasp.world(scene, name)))


def _reach_for(
    scene: Scene, name: str, grasp: Grasp, place: Place | None
) -> Generator[np.ndarray, None, bool]:
    """Brings the open hand to a grasp; returns whether it got there."""
    chosen_at, chosen_tilt = scene.position(name), scene.rotation(name)
    aim, rotation = grasp.world(scene, name)
    solids = np.concatenate([scene.obstacles(name), scene.points(name)])
    travel_z = clear_height(solids, scene.hand_position, aim, rotation, below_m=TIP_M)
    stalled = Stall(scene)
    for _ in range(_REACH_STEPS):
        if _has_moved(scene, name, chosen_at, chosen_tilt) and scene.hand_position[2] > aim[2] + 0.05:
            grasp = choose_grasp(scene, name, place=place)
            chosen_at, chosen_tilt = scene.position(name), scene.rotation(name)
        pose = Pose(*grasp.world(scene, name))
        aim = pose.position
        left_m, left_rad = distance(scene, pose)
        if left_m < _REACHED_M and left_rad < _REACHED_RAD:
            return True
        if stalled():
            return left_m < 3 * _REACHED_M
        yield action_over(scene, pose, OPEN, travel_z=travel_z)
    return False


def _has_moved(scene: Scene, name: str, position: np.ndarray, rotation: np.ndarray) -> bool:
    """Whether an object is elsewhere or otherwise tilted than before: some fall into place as an episode begins."""
    shift = np.linalg.norm(scene.position(name) - position)
    return bool(shift > 0.004 or np.abs(scene.rotation(name) - rotation).max() > 0.03)


def close_hand(scene: Scene, pose: Pose) -> Steps:
    """Closes the fingers in place until they meet something."""
    least, most = _CLOSE_STEPS
    for count in range(most):
        if count >= least and scene.closing_speed < 0.008:
            return
        yield action(scene, pose, CLOSED)


def carry(
    scene: Scene,
    name: str,
    target: Place,
    rotation: np.ndarray | None = None,
    *,
    tolerance_m: tuple[float, float],
) -> Steps:
    """Brings a held object's origin to `target`; ends there, or when the object is lost or held up.

    rotation: (3, 3) of the hand at the end; as it is by default. tolerance_m: sideways and in height.
    """
    held = scene.hand_position - scene.position(name)
    turn = scene.hand_rotation if rotation is None else rotation
    below = scene.hand_position[2] - float(scene.points(name)[:, 2].min())
    end = target(float(held[2])) + held
    travel_z = clear_height(scene.obstacles(name), scene.hand_position, end, turn, below_m=below)
    stalled = Stall(scene)
    for _ in range(_CARRY_STEPS):
        offset = scene.hand_position - scene.position(name)
        place = target(float(offset[2]))
        left = place - scene.position(name)
        lost = abs(np.linalg.norm(offset) - np.linalg.norm(held)) > _LOST_M
        if lost or stalled() or (np.linalg.norm(left[:2]) < tolerance_m[0] and abs(left[2]) < tolerance_m[1]):
            return
        yield action_over(scene, Pose(place + offset, turn), CLOSED, travel_z=travel_z)


def release(scene: Scene, *, up_m: float = 0.06) -> Steps:
    """Opens the fingers, then backs off upwards."""
    pose = Pose(scene.hand_position, scene.hand_rotation)
    for _ in range(5):
        yield action(scene, pose, OPEN)
    away = Pose(pose.position + np.array([0, 0, up_m]), pose.rotation)
    for _ in range(40):
        if scene.hand_position[2] > away.position[2] - 0.02:
            return
        yield action(scene, away, OPEN)


def pick_and_place(
    scene: Scene,
    name: str,
    target: Place,
    *,
    tolerance_m: tuple[float, float] = (0.012, 0.008),
) -> Steps:
    """Takes an object and puts its origin at `target`, again if it slipped."""
    for _ in range(_ATTEMPTS):
        yield from grasp_object(scene, name, target)
        yield from carry(scene, name, target, tolerance_m=tolerance_m)
        left = target(0.0) - scene.position(name)
        reached = np.linalg.norm(left[:2]) < 2 * tolerance_m[0] + 0.01
        yield from release(scene)
        if reached:
            return
