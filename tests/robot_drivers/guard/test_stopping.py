"""Whether feedback confirms a stop: standing, braking well enough, or unverified; at each boundary."""

import numpy as np
import pytest

from rehearsal.cell import Guard
from robot_drivers.guard.stopping import StopWatch

LIMITS = Guard(stop_confirm_s=0.1, standstill_rad_s=0.05, feedback_age_s=0.05)
JUST = 1e-6


def watch(speed_rad_s: float) -> StopWatch:
    """A stop at 10 s of an arm whose second joint moves; it can brake with 5 rad/s^2."""
    speed = np.array([0, speed_rad_s, 0, 0, 0, 0])
    return StopWatch(guard=LIMITS, acceleration_rad_s2=5.0, began_s=10.0, speed_rad_s=speed)


def now(speed_rad_s: float) -> np.ndarray:
    return np.array([0, speed_rad_s, 0, 0, 0, 0])


@pytest.mark.parametrize("side", [-1, 1])
def test_standing_is_below_the_standstill_speed(side: int) -> None:
    assert watch(0.3).judge(10.05, 0.005, now(side * (0.05 - JUST))) == "standing"
    assert watch(0.3).judge(10.05, 0.005, now(side * 0.05)) == "pending"


def test_feedback_from_before_the_stop_confirms_nothing() -> None:
    assert watch(0.0).judge(10.02, 0.02, now(0.0)) == "pending"
    assert watch(0.0).judge(10.02, 0.02 - JUST, now(0.0)) == "standing"


def test_old_feedback_confirms_nothing() -> None:
    assert watch(0.0).judge(10.2, 0.05, now(0.0)) == "standing"
    assert watch(0.0).judge(10.2, 0.05 + JUST, now(0.0)) == "unverified"
    assert watch(0.0).judge(10.09, 0.05 + JUST, now(0.0)) == "pending"


def test_a_slow_arm_must_stand_in_time() -> None:
    assert watch(0.2).judge(10.1, 0.005, now(0.2)) == "pending"
    assert watch(0.2).judge(10.1 + JUST, 0.005, now(0.2)) == "unverified"
    assert watch(0.2).judge(10.1 + JUST, 0.005, now(0.04)) == "standing"


@pytest.mark.parametrize("side", [-1, 1])
def test_a_fast_arm_must_brake_with_half_of_its_acceleration(side: int) -> None:
    # 40 ms to react, then 2.5 rad/s^2: 0.2 s after the stop 0.4 rad/s less.
    assert watch(side * 1.0).judge(10.2, 0.005, now(side * 0.6)) == "pending"
    assert watch(side * 1.0).judge(10.2, 0.005, now(side * (0.6 + JUST))) == "unverified"
    assert watch(side * 1.0).judge(10.2, 0.005, now(-side * (0.6 + JUST))) == "unverified"
    assert watch(side * 1.0).judge(11.0, 0.005, now(side * 0.0501)) == "unverified"


def test_a_joint_that_stood_may_not_start() -> None:
    assert watch(1.0).judge(10.2, 0.005, np.array([0.06, 0.5, 0, 0, 0, 0])) == "unverified"
    assert watch(1.0).judge(10.2, 0.005, np.array([0.05, 0.5, 0, 0, 0, 0])) == "pending"
