"""Motions along Bezier curves: where they start and end, what they pass, how fast, and that they do not pause."""

from pathlib import Path

import numpy as np
import pytest

from rehearsal.cell import read_cell
from training.experts.inverse_kinematics import ArmInverseKinematics
from training.experts.motion import Waypoint, plan
from training.experts.scripts import Hand

CELL = read_cell(Path(__file__).parents[2] / "launch/cells/single_piper.toml")
ARM = CELL.arms[0]
HOME = np.array(ARM.home_joint_rad)
RATE_HZ = CELL.control_rate_hz
NEAR, FAR = np.array([0.28, 0.10]), np.array([0.33, -0.12])


@pytest.fixture(scope="module")
def kinematics() -> ArmInverseKinematics:
    return ArmInverseKinematics(ARM)


def hand(kinematics: ArmInverseKinematics) -> Hand:
    start = kinematics.tool_position(HOME)
    return Hand(np.random.default_rng(0), start, np.array(ARM.base_position_m), 0.0)


def reach_and_carry(kinematics: ArmInverseKinematics) -> list[Waypoint]:
    """Returns two curves without jitter: down to NEAR, then up, across and down to FAR."""
    own = hand(kinematics)
    own.reach(NEAR, 0.06, above_m=0.10, opening=0.07, jitter_m=0.0)
    own.carry(FAR, 0.08, above_m=0.06, jitter_m=0.0)
    return own.waypoints


def tool_path(kinematics: ArmInverseKinematics, waypoints: list[Waypoint]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the planned targets (T, 7) and the tool's points (1 + T, 3) from home on."""
    targets = plan(kinematics, HOME, 0.0, waypoints, RATE_HZ, ARM.limits)
    points = [kinematics.tool_position(joint_rad) for joint_rad in [HOME, *targets[:, :6]]]
    return targets, np.array(points)


def bezier(control: list[np.ndarray], fraction: float) -> np.ndarray:
    """Returns a point of the curve by de Casteljau's construction."""
    points = [np.asarray(point, float) for point in control]
    while len(points) > 1:
        points = [(1 - fraction) * a + fraction * b for a, b in zip(points, points[1:])]
    return points[0]


def test_reach_and_carry_bend_through_points_above(kinematics: ArmInverseKinematics) -> None:
    down, across = reach_and_carry(kinematics)
    np.testing.assert_allclose(down.position_m, [0.28, 0.10, 0.06])
    np.testing.assert_allclose(down.via_m, [[0.28, 0.10, 0.16]])
    assert down.opening_m == across.opening_m == 0.07
    np.testing.assert_allclose(across.position_m, [0.33, -0.12, 0.08])
    np.testing.assert_allclose(across.via_m, [[0.28, 0.10, 0.12], [0.33, -0.12, 0.14]])


def test_jitter_bends_the_way_and_leaves_the_end(kinematics: ArmInverseKinematics) -> None:
    ways = []
    for seed in (1, 2):
        own = Hand(np.random.default_rng(seed), kinematics.tool_position(HOME), np.zeros(3), 0.0)
        own.reach(NEAR, 0.06, above_m=0.10, opening=0.07, jitter_m=0.02)
        ways.append(own.waypoints[0])
    assert ways[0].position_m == ways[1].position_m
    assert 0.001 < np.abs(np.subtract(ways[0].via_m, [[0.28, 0.10, 0.16]])).max() <= 0.02
    assert np.abs(np.subtract(ways[0].via_m, ways[1].via_m)).max() > 0.001


def test_a_curve_starts_and_ends_where_it_should_and_follows_its_bezier(kinematics: ArmInverseKinematics) -> None:
    """Between the points that the inverse kinematics solves, a spline of joint angles leads within millimetres."""
    waypoints = reach_and_carry(kinematics)
    targets, points = tool_path(kinematics, waypoints)
    first = len(plan(kinematics, HOME, 0.0, waypoints[:1], RATE_HZ, ARM.limits))
    assert np.linalg.norm(points[1] - points[0]) < 0.002
    np.testing.assert_allclose(points[first], waypoints[0].position_m, atol=1e-3)
    np.testing.assert_allclose(points[-1], waypoints[1].position_m, atol=1e-3)
    np.testing.assert_allclose(targets[[first - 1, -1], 6], 0.07)
    starts = [points[0], np.array(waypoints[0].position_m)]
    for start, waypoint, way in zip(starts, waypoints, [points[: first + 1], points[first:]]):
        control = [start, *map(np.array, waypoint.via_m), np.array(waypoint.position_m)]
        curve = np.array([bezier(control, fraction) for fraction in np.linspace(0, 1, 401)])
        nearest = np.linalg.norm(way[:, None] - curve[None], axis=2).min(axis=1)
        assert nearest.max() < 0.004


def joint_speeds(targets: np.ndarray) -> np.ndarray:
    """Returns joint speeds (T + 2, 6) [rad/s], from rest to rest."""
    at_rest = np.concatenate([HOME[None], HOME[None], targets[:, :6], targets[-1:, :6]])
    return np.diff(at_rest, axis=0) * RATE_HZ


def test_curves_keep_within_the_limits_even_when_asked_for_more(kinematics: ArmInverseKinematics) -> None:
    down, across = reach_and_carry(kinematics)
    hasty = [Waypoint(position_m=w.position_m, via_m=w.via_m, opening_m=0.07, duration_s=0.05) for w in (down, across)]
    for waypoints in ([down, across], hasty):
        targets, _ = tool_path(kinematics, waypoints)
        speed = joint_speeds(targets)
        assert np.abs(speed).max() <= ARM.limits.joint_speed_rad_s
        assert np.abs(np.diff(speed, axis=0)).max() * RATE_HZ <= ARM.limits.joint_acceleration_rad_s2 * (1 + 1e-9)
    assert np.abs(np.diff(speed, axis=0)).max() * RATE_HZ > 0.8 * ARM.limits.joint_acceleration_rad_s2


def slowest_between(points: np.ndarray) -> float:
    """Returns the tool's least speed as a share of its greatest, without the first and last fifth of the motion."""
    speed = np.linalg.norm(np.diff(points, axis=0), axis=1)
    fifth = len(speed) // 5
    return float(speed[fifth:-fifth].min() / speed.max())


def test_a_curve_does_not_pause_where_a_polygon_stops(kinematics: ArmInverseKinematics) -> None:
    """Minimum jerk has 0.41 of its peak speed a fifth from either end; the curve's own parameter takes half of it."""
    down, across = reach_and_carry(kinematics)
    _, points = tool_path(kinematics, [down])
    assert slowest_between(points) > 0.15
    _, points = tool_path(kinematics, [down, across])
    only_down = len(plan(kinematics, HOME, 0.0, [down], RATE_HZ, ARM.limits))
    assert slowest_between(points[only_down:]) > 0.15
    via, end = down.via_m[0], down.position_m
    polygon = [Waypoint(position_m=place, opening_m=0.07, duration_s=0.5) for place in (via, end)]
    _, points = tool_path(kinematics, polygon)
    assert slowest_between(points) < 0.05
