"""From waypoints of the tool to joint targets at the control rate: minimum-jerk in time, straight in space."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from training.experts.inverse_kinematics import ArmInverseKinematics

_SAMPLES_A_SEGMENT = 4


@dataclass(frozen=True, kw_only=True)
class Waypoint:
    """Where the tool should be after `duration_s`: position (3,) in the world [m], gripper opening [m].

    A waypoint at the place of the one before closes, opens or waits.
    """

    position_m: tuple[float, float, float]
    opening_m: float
    duration_s: float


def tilt_at(height_m: float) -> float:
    """Returns the tool's outward tilt [rad] at a height.

    J5 ends at 1.22 rad: above 10 cm the Piper cannot point straight down, so the tool tilts more the higher it is.
    """
    return float(np.clip(0.20 + 1.7 * (height_m - 0.02), 0.15, 0.52))


def plan(
    kinematics: ArmInverseKinematics,
    home_joint_rad: np.ndarray,
    home_opening_m: float,
    waypoints: Sequence[Waypoint],
    control_rate_hz: float,
) -> np.ndarray:
    """Returns joint targets and gripper opening (T, 7) through the waypoints, from the measured home."""
    position = kinematics.tool_position(home_joint_rad)
    kinematics.start(home_joint_rad)
    joints, opening = np.asarray(home_joint_rad, float), home_opening_m
    pieces = []
    for waypoint in waypoints:
        steps = max(1, round(waypoint.duration_s * control_rate_hz))
        progress = _minimum_jerk((np.arange(steps) + 1) / steps)
        target = np.asarray(waypoint.position_m, float)
        if np.linalg.norm(target - position) > 1e-4:
            fractions = np.linspace(0, 1, _SAMPLES_A_SEGMENT + 1)
            knots = [joints]
            for fraction in fractions[1:]:
                point = position + fraction * (target - position)
                knots.append(kinematics.solve(point, tilt_at(point[2])))
            path = CubicSpline(fractions, np.array(knots))(progress)
        else:
            path = np.repeat(joints[None], steps, axis=0)
        openings = opening + progress * (waypoint.opening_m - opening)
        pieces.append(np.column_stack([path, openings]))
        position, joints, opening = target, path[-1], waypoint.opening_m
    return np.concatenate(pieces)


def _minimum_jerk(time: np.ndarray) -> np.ndarray:
    """Returns progress 0 to 1 of a minimum-jerk motion (Flash & Hogan 1985) at relative times 0 to 1."""
    return time**3 * (10 - 15 * time + 6 * time**2)
