"""Clocks: simulated time moves exactly as told, the host's sleeps to absolute deadlines."""

import time

import pytest

from rehearsal.clock import ManualClock, MonotonicClock


def test_a_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(5.0)
    assert clock.now_s() == clock.now_s() == 5.0
    clock.advance(0.25)
    clock.sleep_until(6.0)
    assert clock.now_s() == 6.0
    clock.sleep_until(2.0)
    assert clock.now_s() == 6.0, "a deadline that has passed takes no time"
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-0.1)


def test_the_host_clock_never_wakes_early() -> None:
    clock = MonotonicClock()
    deadline = clock.now_s() + 0.02
    clock.sleep_until(deadline)
    woken = clock.now_s()
    assert deadline <= woken <= time.monotonic()
    clock.sleep_until(deadline - 100)
    assert clock.now_s() - woken < 1.0, "a deadline that has passed is not waited for"
