"""Where to take hold of an object: across its narrow side from above, or at its rim."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from training.experts.libero.motion import PALM_HALF_M, PALM_M, TIP_M
from training.experts.libero.scene import Scene, category_of

RIM_CATEGORIES = (
    "akita_black_bowl",
    "white_bowl",
    "glazed_rim_porcelain_ramekin",
    "plate",
    "porcelain_mug",
    "red_coffee_mug",
    "white_yellow_mug",
)
"""Hollow and wider than the hand opens (8 cm): one finger goes inside."""

MAX_WIDTH_M = 0.072
_OPEN_M = 0.04
_FINGER_HALF_M = (0.013, 0.011)
"""Half extents of a finger along and across the closing axis."""
_MARGIN_M = 0.004
_NEIGHBOURHOOD_M = 0.2
_LOW_SIDE_COST = 15.0
"""Cost of 1 m below the highest point of a rim: one that leans is taken at the top."""
_TURN_COST = 0.25
"""Cost of turning the hand by 1 rad."""
_REACH_M, _REACH_COST = 0.69, 25.0
"""Cost of 1 m beyond a comfortable reach: a stretched elbow (0.719 m) flips over and pulls the hand away."""
_TRIED_COST = 1.0
"""Cost of trying again, within 3 cm, what failed."""
_COLLISION_COST = 0.2
"""Cost of one point that the open hand would hit."""


@dataclass(frozen=True)
class Grasp:
    """Where the hand is in the object's frame: position (3,) [m], closing axis (3,). It always points down."""

    position: np.ndarray
    closing: np.ndarray

    def world(self, scene: Scene, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the hand's position and rotation in the world, where the object is now."""
        turn = scene.rotation(name)
        closing = turn @ self.closing
        return scene.position(name) + turn @ self.position, pointing_down(np.arctan2(closing[1], closing[0]))


def pointing_down(closing_rad: float) -> np.ndarray:
    """Returns the hand's rotation that points down and closes along (cos, sin) of an angle."""
    along = np.array([np.cos(closing_rad), np.sin(closing_rad), 0.0])
    down = np.array([0.0, 0.0, -1.0])
    return np.column_stack([along, np.cross(down, along), down])


def choose_grasp(
    scene: Scene,
    name: str,
    *,
    tried: Sequence[Grasp] = (),
    place: Callable[[float], np.ndarray] | None = None,
) -> Grasp:
    """Returns the cheapest grasp of an object: free of its neighbours first, then little turning of the hand.

    tried: what failed.
    place: where the object's origin will go, from the height of the hand above it; the hand must fit there too.
    """
    points, origin = scene.points(name), scene.position(name)
    others = scene.obstacles(name)
    here = _within(others, origin)
    now = scene.hand_rotation[:, 0]
    candidates: list[tuple[np.ndarray, float, float]] = []
    if category_of(name) in RIM_CATEGORIES:
        candidates = _rim_grasps(scene, name, points)
    candidates = candidates or _top_grasps(points)
    best, best_cost, around = candidates[0][:2], np.inf, None
    for position, angle, width_cost in candidates:
        cost = width_cost + _TURN_COST * abs(_turning(now, angle))
        cost += _COLLISION_COST * _collisions(here, points, position, angle)
        if place is not None:
            there = place(float(position[2] - origin[2])) - origin
            around = _within(others, origin + there) if around is None else around
            cost += _COLLISION_COST * _collisions(around, points + there, position + there, angle)
            cost += _REACH_COST * max(0.0, scene.reach(position + there) - _REACH_M)
        cost += sum(
            _TRIED_COST for other in tried if np.linalg.norm(position - other.world(scene, name)[0]) < 0.03
        )
        cost += _REACH_COST * max(0.0, scene.reach(position) - _REACH_M)
        if cost < best_cost:
            best, best_cost = (position, angle), cost
    position, angle = best
    # Of the two hands that close along the same line, the one that is nearer.
    if np.cos(angle) * now[0] + np.sin(angle) * now[1] < 0:
        angle += np.pi
    turn = scene.rotation(name)
    return Grasp(
        turn.T @ (position - scene.position(name)),
        turn.T @ [np.cos(angle), np.sin(angle), 0.0],
    )


def _within(points: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Returns those of the points that a hand near a position may touch."""
    return points[np.abs(points[:, :2] - position[:2]).max(axis=1) < _NEIGHBOURHOOD_M]


def _turning(now: np.ndarray, angle: float) -> float:
    """Returns the least turn [rad] that brings the closing axis onto a line at an angle."""
    difference = angle - np.arctan2(now[1], now[0])
    return float((difference + np.pi / 2) % np.pi - np.pi / 2)


def _rim_grasps(scene: Scene, name: str, points: np.ndarray) -> list[tuple[np.ndarray, float, float]]:
    """Returns (position, angle, cost) of grasps of the wall, one finger inside, for outward directions."""
    centre = scene.position(name)
    offset = points[:, :2] - centre[:2]
    angles = np.arctan2(offset[:, 1], offset[:, 0])
    wall = np.linalg.norm(offset, axis=1) > 0.03
    found = []
    for angle in np.deg2rad(np.arange(-180, 180, 15)):
        side = wall & (np.abs((angles - angle + np.pi) % (2 * np.pi) - np.pi) < np.deg2rad(20))
        if not side.any():
            continue
        top = float(points[side, 2].max())  # of this side: a bowl on a ramekin stands askew
        outward = np.array([np.cos(angle), np.sin(angle)])
        radius = offset[side & (points[:, 2] > top - 0.022)] @ outward
        middle = centre[:2] + outward * (radius.max() + radius.min()) / 2
        height = max(top - 0.013, points[:, 2].min() + TIP_M + 0.003)
        lower = float(points[:, 2].max()) - top
        found.append((np.array([*middle, height]), float(angle), _LOW_SIDE_COST * max(0.0, lower - 0.005)))
    return found


def _top_grasps(points: np.ndarray) -> list[tuple[np.ndarray, float, float]]:
    """Returns (position, angle, cost) of grasps from above across the object, for closing directions."""
    top, bottom = points[:, 2].max(), points[:, 2].min()
    height = max(top - 0.022, bottom + TIP_M + 0.003)
    held = points[np.abs(points[:, 2] - height) < 0.012][:, :2]
    found = []
    for angle in np.deg2rad(np.arange(0, 180, 10)):
        along = np.array([np.cos(angle), np.sin(angle)])
        across = np.array([-along[1], along[0]])
        low, high = (held @ along).min(), (held @ along).max()
        width_cost = 8.0 * (high - low) + 100.0 * max(0.0, high - low - MAX_WIDTH_M)
        left, right = (held @ across).min(), (held @ across).max()
        middle = along * (low + high) / 2 + across * (left + right) / 2
        found.append((np.array([*middle, height]), float(angle), width_cost))
    return found


def _collisions(others: np.ndarray, own: np.ndarray, position: np.ndarray, angle: float) -> float:
    """Returns how many points the open hand would hit, 0 for none."""
    count = 0.0
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    for points, with_fingers in ((others, True), (own, False)):
        points = points[np.abs(points[:, :2] - position[:2]).max(axis=1) < 0.15]
        offset = points[:, :2] - position[:2]
        x, y = offset @ along, offset @ across
        z = points[:, 2] - position[2]
        palm = (np.abs(x) < PALM_HALF_M[0]) & (np.abs(y) < PALM_HALF_M[1]) & (z > PALM_M)
        count += float(palm.sum())
        if with_fingers:
            beside = np.abs(np.abs(x) - _OPEN_M - _FINGER_HALF_M[0]) < _FINGER_HALF_M[0] + _MARGIN_M
            finger = beside & (np.abs(y) < _FINGER_HALF_M[1] + _MARGIN_M) & (z > -TIP_M - _MARGIN_M)
            count += float(finger.sum())
    return count
