"""From a BDDL goal to a sequence of skills."""

from collections.abc import Sequence

import numpy as np

from rehearsal.errors import RehearsalError
from training.experts.libero.pick_place import Steps, pick_and_place
from training.experts.libero.scene import Scene

Predicate = tuple[str, ...]


def plan(scene: Scene, goal: Sequence[Predicate]) -> Steps:
    """Yields the actions that make the predicates of a goal true, one after the other."""
    for predicate in goal:
        yield from _skill(scene, predicate)


def _skill(scene: Scene, predicate: Predicate) -> Steps:
    match predicate:
        case ("on", name, support) if scene.is_object(support):
            return place_on_object(scene, name, support)
        case ("in", name, region):
            return place_in(scene, name, region)
    raise RehearsalError(f"no skill for the goal {' '.join(predicate)!r}")


def place_on_object(scene: Scene, name: str, support: str) -> Steps:
    """An object on another: above its middle, 1 cm from its highest point there, then let go."""

    def target() -> np.ndarray:
        at = scene.position(support)
        return np.array([*at[:2], at[2] + 0.012])

    return pick_and_place(scene, name, target)


def place_in(scene: Scene, name: str, region: str) -> Steps:
    """An object in a region that is open at the top: over its middle, as low as the hand gets, then let go."""
    container = scene.parent(region)

    def target() -> np.ndarray:
        at = scene.position(region)
        top = float(scene.points(container)[:, 2].max())
        bottom = scene.position(name)[2] - float(scene.points(name)[:, 2].min())
        hand = scene.hand_position[2] - scene.position(name)[2]
        return np.array([*at[:2], max(top - hand - 0.01, at[2] - 0.05 + bottom)])

    return pick_and_place(scene, name, target, tolerance_m=(0.03, 0.02))
