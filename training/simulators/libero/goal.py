"""The goal as arrays and its test, compiled: LIBERO's own criteria on a live mjData, no Python in the loop.

Sleeping things make no contacts in MuJoCo. Two things that sleep lie as they lay when they fell asleep, so a pair's
contact is remembered from the last time one of them was awake.
"""

from typing import NamedTuple

import mujoco
import numpy as np
from numba import njit

from rehearsal.errors import RehearsalError
from training.simulators.libero.scene_record import Condition

_KINDS = ("on_object", "on_site", "in_site", "joints")
_ON_OBJECT, _ON_SITE, _IN_SITE, _JOINTS = range(4)
_AWAKE = int(mujoco.mjtSleepState.mjS_AWAKE)

# LIBERO's own tolerances [m].
_CENTRE_M, _SINK_M, _ABOVE_M, _BOX_BOTTOM_M = 0.03, 0.005, 0.10, 0.01


class Goal(NamedTuple):
    """A conjunction of C conditions over P pairs of things that must touch.

    kind, item, lower, site, pair, first, number: int64 (C,); -1 where there is none. size: (C, 3) [m]. threshold:
    (C,) [m or rad]. above, some: bool (C,). joints: int64, addresses in qpos, `number` from `first` on a condition.
    sides: uint8 (P, ngeom), 1 and 2 for either side of a pair.
    """

    kind: np.ndarray
    item: np.ndarray
    lower: np.ndarray
    site: np.ndarray
    pair: np.ndarray
    first: np.ndarray
    number: np.ndarray
    size: np.ndarray
    threshold: np.ndarray
    above: np.ndarray
    some: np.ndarray
    joints: np.ndarray
    sides: np.ndarray

    @property
    def pairs(self) -> int:
        return len(self.sides)


def compile_goal(model: mujoco.MjModel, conditions: tuple[Condition, ...]) -> Goal:
    """Raises RehearsalError when the model lacks a name of the conditions."""
    sides: list[np.ndarray] = []
    joints: list[int] = []
    table = np.full((7, len(conditions)), -1, dtype=np.int64)
    for i, condition in enumerate(conditions):
        table[0, i] = _KINDS.index(condition.kind)
        for row, element_kind, name in (
            (1, "body", condition.item),
            (2, "body", condition.lower),
            (3, "site", condition.site),
        ):
            table[row, i] = element(model, element_kind, name) if name else -1
        if condition.touching is not None:
            table[4, i] = len(sides)
            sides.append(_sides(model, condition.touching))
        table[5, i], table[6, i] = len(joints), len(condition.joints)
        joints += [int(model.jnt_qposadr[element(model, "joint", name)]) for name in condition.joints]
    kind, item, lower, site, pair, first, number = table
    return Goal(
        kind=kind,
        item=item,
        lower=lower,
        site=site,
        pair=pair,
        first=first,
        number=number,
        size=np.array([condition.size_m for condition in conditions], dtype=np.float64),
        threshold=np.array([condition.threshold for condition in conditions], dtype=np.float64),
        above=np.array([condition.above for condition in conditions]),
        some=np.array([condition.any for condition in conditions]),
        joints=np.array(joints, dtype=np.int64),
        sides=np.array(sides, dtype=np.uint8).reshape(-1, model.ngeom),
    )


def element(model: mujoco.MjModel, kind: str, name: str) -> int:
    """Returns the id of a body, joint, site, geom, actuator or camera; raises RehearsalError when there is none."""
    found = mujoco.mj_name2id(model, getattr(mujoco.mjtObj, f"mjOBJ_{kind.upper()}"), name)
    if found < 0:
        raise RehearsalError(
            f"the compiled scene has no {kind} {name!r}: the cache is of another version; delete it"
        )
    return int(found)


def _sides(model: mujoco.MjModel, touching: tuple[tuple[str, ...], tuple[str, ...]]) -> np.ndarray:
    row = np.zeros(model.ngeom, dtype=np.uint8)
    for bit, names in zip((1, 2), touching, strict=True):
        row[[element(model, "geom", name) for name in names]] |= bit
    return row


@njit(nogil=True, cache=True)
def update_touching(
    goal: Goal, body_awake: np.ndarray, contact_geoms: np.ndarray, touching: np.ndarray
) -> None:
    """Notes in touching (P,) which pairs are in contact. contact_geoms: int32 (ncon, 2)."""
    for i in range(len(goal.kind)):
        pair = goal.pair[i]
        if pair < 0 or (body_awake[goal.item[i]] != _AWAKE and body_awake[goal.lower[i]] != _AWAKE):
            continue
        found = False
        for c in range(contact_geoms.shape[0]):
            one, two = goal.sides[pair, contact_geoms[c, 0]], goal.sides[pair, contact_geoms[c, 1]]
            if (one & 1 and two & 2) or (one & 2 and two & 1):
                found = True
                break
        touching[pair] = found


@njit(nogil=True, cache=True)
def reached(
    goal: Goal,
    qpos: np.ndarray,
    xpos: np.ndarray,
    site_xpos: np.ndarray,
    site_xmat: np.ndarray,
    touching: np.ndarray,
) -> bool:
    """Returns whether every condition holds. xpos: (nbody, 3); site_xpos: (nsite, 3); site_xmat: (nsite, 9)."""
    for i in range(len(goal.kind)):
        if goal.pair[i] >= 0 and not touching[goal.pair[i]]:
            return False
        kind = goal.kind[i]
        if kind == _JOINTS:
            holds = _joints_hold(goal, i, qpos)
        elif kind == _ON_OBJECT:
            item, lower = xpos[goal.item[i]], xpos[goal.lower[i]]
            apart = np.sqrt((item[0] - lower[0]) ** 2 + (item[1] - lower[1]) ** 2)
            holds = lower[2] <= item[2] and apart < _CENTRE_M
        else:
            site = goal.site[i]
            holds = _at_site(kind, goal.size[i], site_xpos[site], site_xmat[site], xpos[goal.item[i]])
        if not holds:
            return False
    return True


@njit(nogil=True, cache=True)
def _joints_hold(goal: Goal, i: int, qpos: np.ndarray) -> bool:
    for joint in goal.joints[goal.first[i] : goal.first[i] + goal.number[i]]:
        value = qpos[joint]
        beyond = value > goal.threshold[i] if goal.above[i] else value < goal.threshold[i]
        if beyond == goal.some[i]:
            return bool(beyond)
    return not goal.some[i]


@njit(nogil=True, cache=True)
def _at_site(kind: int, size: np.ndarray, centre: np.ndarray, turn: np.ndarray, item: np.ndarray) -> bool:
    """In: a box along the world's axes around the turned size. On: the site's own area and a height above it."""
    for axis in range(3):
        row = turn[3 * axis : 3 * axis + 3]
        if kind == _IN_SITE:
            half = abs(row[0] * size[0] + row[1] * size[1] + row[2] * size[2])
            bottom = _BOX_BOTTOM_M if axis == 2 else 0.0
            if not centre[axis] - half - bottom < item[axis] < centre[axis] + half:
                return False
        else:
            offset = 0.0
            for k in range(3):
                offset += row[k] * (item[k] - centre[k])
            if axis < 2 and not abs(offset) < size[axis]:
                return False
            if axis == 2 and not size[2] - _SINK_M < offset < size[2] + _ABOVE_M:
                return False
    return True
