"""From a target pose of the hand to one LIBERO action: a flowing approach under operational-space control.

LIBERO's controller (OSC_POSE of robosuite 1.4, kp 150, critically damped) takes a step of at most 0.05 m and 0.5 rad
from where the hand is. Under a constant step d the hand settles at about 5.3 d a second, 0.27 m/s at most.
"""

from dataclasses import dataclass

import numpy as np

from training.experts.libero.scene import Scene

STEP_M = 0.05
STEP_RAD = 0.5
OPEN, CLOSED = -1.0, 1.0
_GAIN = 1.3
"""Step commanded per distance left: the fastest approach that does not overshoot by more than 2 mm."""
_TURN_GAIN = 0.8
_FUNNEL_SLOPE = 1.6
"""Height over distance of the funnel in which the hand comes down on its target."""
_CLIMB_BLEND_M = 0.025
"""How far below its path the hand may be before it stops going sideways and only climbs."""


@dataclass(frozen=True)
class Pose:
    """Where the hand should be: position (3,) [m], rotation (3, 3)."""

    position: np.ndarray
    rotation: np.ndarray


def action(scene: Scene, pose: Pose, gripper: float, *, speed: float = 1.0) -> np.ndarray:
    """Returns the action (7,) that goes straight to a pose; speed: share of the largest step."""
    return _action(scene, pose.position - scene.hand_position, pose.rotation, gripper, speed, speed)


def action_over(
    scene: Scene,
    pose: Pose,
    gripper: float,
    *,
    travel_z: float,
    funnel_m: float = 0.015,
    speed: float = 1.0,
) -> np.ndarray:
    """Returns the action (7,) that goes to a pose from above: up to `travel_z`, across, down, all in one flow.

    travel_z: height of the hand [m] at which it is clear of everything between here and there.
    funnel_m: distance from the target within which the hand comes straight down.
    """
    here = scene.hand_position
    left = pose.position - here
    distance = float(np.linalg.norm(left[:2]))
    rise = max(0.0, travel_z - pose.position[2])
    path_z = pose.position[2] + min(rise, _FUNNEL_SLOPE * max(0.0, distance - funnel_m))
    sideways = float(np.clip(1.0 - (path_z - here[2]) / _CLIMB_BLEND_M, 0.0, 1.0))
    offset = np.array([*(left[:2] * sideways), path_z - here[2]])
    return _action(scene, offset, pose.rotation, gripper, speed * max(sideways, 0.02), speed)


def _action(
    scene: Scene, offset: np.ndarray, rotation: np.ndarray, gripper: float, speed: float, speed_z: float
) -> np.ndarray:
    step = _GAIN * offset / STEP_M
    sideways = float(np.abs(step[:2]).max())
    if sideways > speed:
        step[:2] *= speed / sideways
    step[2] = np.clip(step[2], -speed_z, speed_z)
    turn = _TURN_GAIN * rotation_vector(rotation @ scene.hand_rotation.T) / STEP_RAD
    largest = float(np.abs(turn).max())
    if largest > 1:
        turn /= largest
    return np.array([*step, *turn, gripper], dtype=np.float32)


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """Returns axis times angle (3,) [rad] of a rotation matrix."""
    cosine = float(np.clip((np.trace(rotation) - 1) / 2, -1, 1))
    angle = float(np.arccos(cosine))
    axis = np.array(
        [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    )
    size = float(np.linalg.norm(axis))
    if size < 1e-9:
        return np.zeros(3) if cosine > 0 else np.array([0.0, 0.0, angle])
    return axis / size * angle


def distance(scene: Scene, pose: Pose) -> tuple[float, float]:
    """Returns how far the hand is from a pose [m, rad]."""
    turn = rotation_vector(pose.rotation @ scene.hand_rotation.T)
    return float(np.linalg.norm(pose.position - scene.hand_position)), float(np.linalg.norm(turn))


def height_along(points: np.ndarray, start: np.ndarray, end: np.ndarray, width_m: float) -> float:
    """Returns the largest z of points within `width_m` of the segment from start to end, seen from above."""
    line = end[:2] - start[:2]
    length = float(line @ line)
    share = np.clip((points[:, :2] - start[:2]) @ line / max(length, 1e-9), 0, 1)
    nearest = start[:2] + share[:, None] * line
    close = np.linalg.norm(points[:, :2] - nearest, axis=1) < width_m
    return float(points[close, 2].max()) if close.any() else -np.inf
