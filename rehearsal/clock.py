"""Monotonic time, injected wherever timing matters, so that tests of timing are exact and instant."""

import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic seconds of one host; two hosts' clocks are never differenced."""

    def now_s(self) -> float: ...

    def sleep_until(self, deadline_s: float) -> None: ...


class MonotonicClock:
    """The host's monotonic clock."""

    def now_s(self) -> float:
        return time.monotonic()

    def sleep_until(self, deadline_s: float) -> None:
        """Sleeps to an absolute deadline [s]; returns at once when it has passed."""
        remaining_s = deadline_s - time.monotonic()
        if remaining_s > 0:
            time.sleep(remaining_s)


class ManualClock:
    """A clock that only moves when told to: simulated time, and tests."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s

    def now_s(self) -> float:
        return self._now_s

    def sleep_until(self, deadline_s: float) -> None:
        self._now_s = max(self._now_s, deadline_s)

    def advance(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError(f"a monotonic clock cannot go back by {-seconds} s")
        self._now_s += seconds
