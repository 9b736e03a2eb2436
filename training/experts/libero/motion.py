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
TIP_M = 0.011
"""How far the fingertips reach beyond the point between the pads (finger mesh of robosuite's Panda)."""
PALM_M = 0.028
"""How far the palm is behind that point."""
PALM_HALF_M = (0.104, 0.034)
"""Half extents of the palm along and across the closing axis."""
HELD_RADIUS_M = 0.07
"""What the fingers and an object between them take up, seen from above."""
_CLEARANCE_M = 0.02
_WAY_SAMPLES = 13
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


def clear_height(
    points: np.ndarray, start: np.ndarray, end: np.ndarray, rotation: np.ndarray, *, below_m: float
) -> float:
    """Returns the height of the hand [m] at which it passes over points (N, 3) on its way from start to end.

    rotation: (3, 3) of the hand on the way. below_m: how far fingers and what they hold reach down.
    """
    near = _near(points, start, end)
    highest = -np.inf
    along, across = rotation[:2, 0], rotation[:2, 1]
    for share in np.linspace(0, 1, _WAY_SAMPLES):
        offset = near[:, :2] - (start + share * (end - start))[:2]
        held = np.linalg.norm(offset, axis=1) < HELD_RADIUS_M
        palm = (np.abs(offset @ along) < PALM_HALF_M[0]) & (np.abs(offset @ across) < PALM_HALF_M[1])
        if held.any():
            highest = max(highest, float(near[held, 2].max()) + below_m + _CLEARANCE_M)
        if palm.any():
            highest = max(highest, float(near[palm, 2].max()) - PALM_M + _CLEARANCE_M)
    return highest


def _near(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Returns those of the points that anything of the hand may come over."""
    low = np.minimum(start, end)[:2] - PALM_HALF_M[0] - 0.05
    high = np.maximum(start, end)[:2] + PALM_HALF_M[0] + 0.05
    return points[((points[:, :2] > low) & (points[:, :2] < high)).all(axis=1)]
