"""From waypoints of the tool to joint targets at the control rate: minimum-jerk in time, Bezier curves in space."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import comb

from rehearsal.cell import Limits
from training.experts.inverse_kinematics import ArmInverseKinematics

_SAMPLES_A_POINT = 4


@dataclass(frozen=True, kw_only=True)
class Waypoint:
    """Where the tool should be after `duration_s`: position (3,) in the world [m], gripper opening [m].

    via_m: control points of a Bezier curve that leads there; without any the path is straight. A curve does not
    stop on its way, so no picture of it leaves open whether to go on. A waypoint at the place of the one before
    closes, opens or waits.
    """

    position_m: tuple[float, float, float]
    via_m: tuple[tuple[float, float, float], ...] = ()
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
    limits: Limits,
) -> np.ndarray:
    """Returns joint targets and gripper opening (T, 7) through the waypoints, from the measured home.

    Every segment begins and ends at rest, and takes longer than its waypoint says where the arm's speed or
    acceleration limit wants it.
    """
    position = kinematics.tool_position(home_joint_rad)
    kinematics.start(home_joint_rad)
    joints, opening = np.asarray(home_joint_rad, float), home_opening_m
    pieces = []
    for waypoint in waypoints:
        steps = max(1, round(waypoint.duration_s * control_rate_hz))
        target = np.asarray(waypoint.position_m, float)
        if np.linalg.norm(target - position) > 1e-4:
            curve = _curve(kinematics, joints, np.array([position, *waypoint.via_m, target]))
            path = _within_limits(curve, steps, control_rate_hz, limits)
        else:
            path = np.repeat(joints[None], steps, axis=0)
        openings = opening + _progress(len(path)) * (waypoint.opening_m - opening)
        pieces.append(np.column_stack([path, openings]))
        position, joints, opening = target, path[-1], waypoint.opening_m
    return np.concatenate(pieces)


def _curve(kinematics: ArmInverseKinematics, joints: np.ndarray, control_m: np.ndarray) -> CubicSpline:
    """Returns joint angles [rad] over 0 to 1 that move the tool along a Bezier curve.

    control_m: (N, 3) control points; the first is where `joints` have the tool.
    """
    degree = len(control_m) - 1
    fractions = np.linspace(0, 1, _SAMPLES_A_POINT * degree + 1)
    power = np.arange(degree + 1)
    weights = comb(degree, power) * fractions[:, None] ** power * (1 - fractions[:, None]) ** (degree - power)
    knots = [joints, *(kinematics.solve(point, tilt_at(point[2])) for point in (weights @ control_m)[1:])]
    return CubicSpline(fractions, np.array(knots))


def _within_limits(path: CubicSpline, steps: int, control_rate_hz: float, limits: Limits) -> np.ndarray:
    """Returns the path (T, 6) in `steps` control steps, or as many more as keep it within the arm's limits."""
    while True:
        at_rest = path(np.concatenate([[0.0, 0.0], _progress(steps), [1.0]]))
        speed = np.diff(at_rest, axis=0) * control_rate_hz
        acceleration = np.diff(speed, axis=0) * control_rate_hz
        excess = max(
            np.abs(speed).max() / limits.joint_speed_rad_s,
            np.sqrt(np.abs(acceleration).max() / limits.joint_acceleration_rad_s2),
        )
        if excess <= 1:
            return np.asarray(at_rest[2:-1])
        steps = max(steps + 1, round(steps * excess))


def _progress(steps: int) -> np.ndarray:
    """Returns 0 to 1, without the 0, over so many steps."""
    return _minimum_jerk((np.arange(steps) + 1) / steps)


def _minimum_jerk(time: np.ndarray) -> np.ndarray:
    """Returns progress 0 to 1 of a minimum-jerk motion (Flash & Hogan 1985) at relative times 0 to 1."""
    return time**3 * (10 - 15 * time + 6 * time**2)
