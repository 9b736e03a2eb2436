"""Where the arms of a cell would be with given joint angles: tools, and distances to the table, themselves, each other.

One MuJoCo model of all arms and the table's plane, made from the cell. MuJoCo's own collision pass gives every pair
of shapes that is nearer than the guard's margins and a centimetre, with its distance (some 50 us for two arms); larger
distances are reported as that. Pairs that touch by construction are left out by robot_drivers.piper_model.
"""

from dataclasses import dataclass

import mujoco
import numpy as np

from rehearsal.cell import JOINTS_PER_ARM, VALUES_PER_ARM, Cell
from robot_drivers.piper_model import add_piper, tool_site

_BEYOND_M = 0.01

_QPOS_PER_ARM = JOINTS_PER_ARM + 2


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where N arms are. tool_m: (N, 3), world frame; distances [m], negative where shapes overlap.

    table_m, self_m: (N,); arms_m: between any two arms.
    """

    tool_m: np.ndarray
    table_m: np.ndarray
    self_m: np.ndarray
    arms_m: float


class CellGeometry:
    """Not thread-safe: one model state is written at every call."""

    def __init__(self, cell: Cell) -> None:
        spec = mujoco.MjSpec()
        spec.compiler.degree = False
        spec.worldbody.add_geom(name="table", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(2, 2, 0.1))
        for arm in cell.arms:
            add_piper(spec, arm)
        self._sensing_m = max(cell.guard.distance_margin_m, cell.guard.table_clearance_m) + _BEYOND_M
        for geom in spec.geoms:
            geom.margin = self._sensing_m / 2  # a pair's margins add up
        self._model = spec.compile()
        self._data = mujoco.MjData(self._model)
        self._arms = len(cell.arms)
        self._sites = [self._model.site(tool_site(arm.name)).id for arm in cell.arms]
        # Which arm a shape belongs to; -1 is the table.
        names = [self._model.body(body).name for body in self._model.geom_bodyid]
        self._owner = np.array(
            [
                next((i for i, arm in enumerate(cell.arms) if name.startswith(f"{arm.name}_")), -1)
                for name in names
            ]
        )

    def place(self, values: np.ndarray) -> Placement:
        """Returns the placement for joint angles [rad] and openings [m], values: (7 N,) in the action's layout."""
        qpos = self._data.qpos.reshape(self._arms, _QPOS_PER_ARM)
        arms = values.reshape(self._arms, VALUES_PER_ARM)
        qpos[:, :JOINTS_PER_ARM] = arms[:, :JOINTS_PER_ARM]
        qpos[:, JOINTS_PER_ARM:] = arms[:, JOINTS_PER_ARM:] / 2  # the opening is shared by two fingers
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_collision(self._model, self._data)
        table = np.full(self._arms, self._sensing_m)
        own = np.full(self._arms, self._sensing_m)
        between = self._sensing_m
        contacts = self._data.contact
        for (first, second), distance in zip(self._owner[contacts.geom].tolist(), contacts.dist.tolist()):
            if first == second:
                own[first] = min(own[first], distance)
            elif min(first, second) < 0:
                table[max(first, second)] = min(table[max(first, second)], distance)
            else:
                between = min(between, distance)
        return Placement(tool_m=self._data.site_xpos[self._sites], table_m=table, self_m=own, arms_m=between)
