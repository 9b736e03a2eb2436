"""What the expert does in each task, as waypoints; jitter makes a hundred demonstrations a hundred."""

from collections.abc import Callable, Sequence

import numpy as np

from training.experts.motion import Waypoint
from training.simulators.twin import objects

_OPEN_M = 0.07
_SPEED_M_S = 0.28

Places = dict[str, np.ndarray]
Script = Callable[["Hand", Places], None]


class Hand:
    """Collects waypoints; durations follow from distance and a speed that varies from demonstration to demonstration.

    `position` is where the tool is; `base` the arm's base (x, y), which tells radial from tangential.
    """

    def __init__(self, rng: np.random.Generator, start_m: np.ndarray, base_m: np.ndarray, opening_m: float) -> None:
        self.rng = rng
        self.position = np.asarray(start_m, float)
        self.base = np.asarray(base_m, float)[:2]
        self.opening = opening_m
        self.waypoints: list[Waypoint] = []
        self._pace = rng.uniform(0.9, 1.15)

    def move(
        self, place: np.ndarray, height_m: float, *, opening: float | None = None, jitter_m: float = 0.0
    ) -> None:
        """Moves to a height above a place (2,) of the world [m], opening or closing on the way."""
        target = np.array([*place, height_m]) + jitter_m * self.rng.uniform(-1, 1, 3)
        distance = float(np.linalg.norm(target - self.position))
        duration = self._pace * (0.20 + distance / _SPEED_M_S)
        self._add(target, self.opening if opening is None else opening, duration)

    def reach(self, place: np.ndarray, height_m: float, *, above_m: float, opening: float, jitter_m: float) -> None:
        """Comes down to a height above a place (2,) along one curve, from `above_m` higher, without a stop."""
        self._bend(place, height_m, [np.array([*place, height_m + above_m])], opening, jitter_m)

    def carry(self, place: np.ndarray, height_m: float, *, above_m: float, jitter_m: float) -> None:
        """Goes up, across and down to a height above a place (2,) along one curve."""
        lift = self.position + np.array([0, 0, above_m])
        self._bend(place, height_m, [lift, np.array([*place, height_m + above_m])], self.opening, jitter_m)

    def grip(self, opening: float, seconds: float) -> None:
        self._add(self.position, opening, self._pace * seconds)

    def across(self, at: np.ndarray) -> np.ndarray:
        """Returns the unit vector (2,) along which the fingers close when the tool is at a point (x, y)."""
        radial = at - self.base
        radial = radial / np.linalg.norm(radial)
        return np.array([-radial[1], radial[0]])

    def _bend(
        self, place: np.ndarray, height_m: float, via: list[np.ndarray], opening: float, jitter_m: float
    ) -> None:
        """Follows the curve through jittered control points; a curve is some 15 % shorter than its polygon."""
        via = [point + jitter_m * self.rng.uniform(-1, 1, 3) for point in via]
        target = np.array([*place, height_m])
        polygon = np.linalg.norm(np.diff([self.position, *via, target], axis=0), axis=1).sum()
        self._add(target, opening, self._pace * (0.20 + 0.85 * float(polygon) / _SPEED_M_S), via)

    def _add(self, target: np.ndarray, opening: float, duration_s: float, via: Sequence[np.ndarray] = ()) -> None:
        place, *bends = ((float(x), float(y), float(z)) for x, y, z in [target, *via])
        waypoint = Waypoint(position_m=place, via_m=tuple(bends), opening_m=opening, duration_s=duration_s)
        self.waypoints.append(waypoint)
        self.position, self.opening = np.asarray(target, float), opening


def click_bell(hand: Hand, places: Places) -> None:
    bell = places["bell"]
    hand.move(bell, objects.BELL_HEIGHT_M + 0.055, opening=0.0, jitter_m=0.008)
    hand.move(bell, objects.BELL_HEIGHT_M - 0.006)
    hand.grip(0.0, 0.4)


def pick_bottle(hand: Hand, places: Places) -> None:
    bottle = places["bottle"]
    hand.reach(bottle, objects.BOTTLE_NECK_M - 0.010, above_m=0.10, opening=_OPEN_M, jitter_m=0.02)
    hand.grip(0.0, 0.3)
    hand.move(bottle, objects.BOTTLE_NECK_M + 0.100, jitter_m=0.005)
    hand.grip(0.0, 0.3)


def place_empty_cup(hand: Hand, places: Places) -> None:
    cup, coaster = places["cup"], places["coaster"]
    grasp = objects.CUP_HEIGHT_M - 0.025
    hand.reach(cup, grasp, above_m=0.12, opening=_OPEN_M, jitter_m=0.02)
    hand.grip(0.03, 0.3)
    hand.carry(coaster, grasp + objects.COASTER_HEIGHT_M + 0.002, above_m=0.06, jitter_m=0.01)
    hand.grip(_OPEN_M, 0.3)
    hand.move(coaster, grasp + 0.07, jitter_m=0.005)


def stack_bowls(hand: Hand, places: Places) -> None:
    bowl, target = places["bowl"], places["target_bowl"]
    # The pads end 14 mm below the tool point: above the cone, so that the inner one does not stand on it.
    rim = objects.BOWL_RIM_RADIUS_M
    pinch = objects.BOWL_HEIGHT_M
    at = bowl + rim * hand.across(bowl)
    to = target + rim * hand.across(target)
    hand.reach(at, pinch, above_m=0.12, opening=0.05, jitter_m=0.015)
    hand.grip(0.0, 0.3)
    hand.carry(to, pinch + objects.BOWL_RIM_HEIGHT_M + 0.002, above_m=0.10, jitter_m=0.01)
    hand.grip(0.05, 0.3)
    hand.move(to, pinch + 0.08, jitter_m=0.005)


SCRIPTS: dict[str, Script] = {
    "click_bell": click_bell,
    "pick_bottle": pick_bottle,
    "place_empty_cup": place_empty_cup,
    "stack_bowls": stack_bowls,
}
