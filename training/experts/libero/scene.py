"""What the expert sees: the objects, fixtures and sites of one LIBERO scene, read from a MuJoCo model and its data.

Nothing here writes to either. Lengths in m, angles in rad, everything in the world frame unless it says otherwise.
"""

import re

import mujoco
import numpy as np

from rehearsal.errors import RehearsalError

GRIP_SITE = "gripper0_grip_site"
FINGER_JOINTS = ("gripper0_finger_joint1", "gripper0_finger_joint2")
WRIST_OFFSET_M, WRIST_HEIGHT_M = 0.088, 0.204
"""From the point between the pads to the wrist, inward and up, when the hand points down (Panda's DH parameters)."""
_SAMPLE_M = 0.012
"""Distance of the points that stand for a solid: below half a finger's width (22 mm), so that none slips through."""
_MAX_SAMPLES = 24


def category_of(name: str) -> str:
    """`akita_black_bowl_1` -> `akita_black_bowl`."""
    return re.sub(r"_\d+$", "", name)


class Scene:
    """Names and geometry of a scene. `data` is to be set before anything is read, and anew at every control step."""

    data: mujoco.MjData

    def __init__(self, model: mujoco.MjModel) -> None:
        self.model = model
        self._shoulder = self._id(mujoco.mjtObj.mjOBJ_BODY, "robot0_link2")
        self._grip = self._id(mujoco.mjtObj.mjOBJ_SITE, GRIP_SITE)
        joints = [self._id(mujoco.mjtObj.mjOBJ_JOINT, name) for name in FINGER_JOINTS]
        self._finger_positions = [int(model.jnt_qposadr[joint]) for joint in joints]
        self._finger_speeds = [int(model.jnt_dofadr[joint]) for joint in joints]
        solid = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
        roots = model.body_rootid[model.geom_bodyid]
        robot = [
            body
            for body in range(model.nbody)
            if model.body(body).name.startswith(("robot0", "gripper0", "mount0"))
        ]
        self.solids = np.flatnonzero(solid & ~np.isin(model.geom_bodyid, robot) & (roots > 0))
        self._samples = {int(geom): _samples(model, int(geom)) for geom in self.solids}

    def _id(self, kind: mujoco.mjtObj, name: str) -> int:
        found = mujoco.mj_name2id(self.model, kind, name)
        if found < 0:
            raise RehearsalError(
                f"no {kind.name.removeprefix('mjOBJ_').lower()} {name!r} in this LIBERO model"
            )
        return int(found)

    # The hand.
    @property
    def hand_position(self) -> np.ndarray:
        """(3,) of the point between the finger pads."""
        return np.array(self.data.site_xpos[self._grip])

    @property
    def hand_rotation(self) -> np.ndarray:
        """(3, 3); column 0 is the axis along which the fingers close, column 2 points out of the hand."""
        return np.array(self.data.site_xmat[self._grip]).reshape(3, 3)

    @property
    def opening(self) -> float:
        """Distance between the finger pads, 0 to 0.08."""
        first, second = (float(self.data.qpos[i]) for i in self._finger_positions)
        return first - second

    @property
    def closing_speed(self) -> float:
        """How fast the opening shrinks [m/s]."""
        first, second = (float(self.data.qvel[i]) for i in self._finger_speeds)
        return second - first

    def reach(self, position: np.ndarray) -> float:
        """Returns the distance of shoulder and wrist when the hand points down at a position (3,); 0.719 at most."""
        offset = position - self.data.xpos[self._shoulder]
        outward = float(np.hypot(offset[0], offset[1])) - WRIST_OFFSET_M
        return float(np.hypot(outward, offset[2] + WRIST_HEIGHT_M))

    # Objects and sites.
    def is_object(self, name: str) -> bool:
        """Whether `name` is an object or fixture rather than a site."""
        return mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_BODY, f"{name}_main") >= 0

    def body(self, name: str) -> int:
        return self._id(mujoco.mjtObj.mjOBJ_BODY, f"{name}_main")

    def site(self, name: str) -> int:
        return self._id(mujoco.mjtObj.mjOBJ_SITE, name)

    def position(self, name: str) -> np.ndarray:
        """(3,) origin of an object, fixture or site."""
        if self.is_object(name):
            return np.array(self.data.xpos[self.body(name)])
        return np.array(self.data.site_xpos[self.site(name)])

    def rotation(self, name: str) -> np.ndarray:
        """(3, 3) of an object, fixture or site."""
        if self.is_object(name):
            return np.array(self.data.xmat[self.body(name)]).reshape(3, 3)
        return np.array(self.data.site_xmat[self.site(name)]).reshape(3, 3)

    def parent(self, name: str) -> str:
        """The object or fixture that a site belongs to: `basket_1_contain_region` -> `basket_1`."""
        body = int(self.model.site_bodyid[self.site(name)])
        while body and not self.model.body(body).name.endswith("_main"):
            body = int(self.model.body_parentid[body])
        return str(self.model.body(body).name).removesuffix("_main")

    def points(self, *names: str) -> np.ndarray:
        """(N, 3) points that fill the solids of these objects or fixtures, moving parts included."""
        wanted = {self.body(name) for name in names}
        return self._sampled([int(geom) for geom in self.solids if wanted & self._ancestors(int(geom))])

    def body_points(self, bodies: set[int]) -> np.ndarray:
        """(N, 3) points that fill the solids of exactly these bodies."""
        return self._sampled([int(g) for g in self.solids if int(self.model.geom_bodyid[g]) in bodies])

    def obstacles(self, *without: str) -> np.ndarray:
        """(N, 3) points that fill everything but the robot and these objects."""
        left_out = {self.body(name) for name in without}
        return self._sampled([int(geom) for geom in self.solids if not left_out & self._ancestors(int(geom))])

    def _ancestors(self, geom: int) -> set[int]:
        body, found = int(self.model.geom_bodyid[geom]), set()
        while body:
            found.add(body)
            body = int(self.model.body_parentid[body])
        return found

    def _sampled(self, geoms: list[int]) -> np.ndarray:
        if not geoms:
            return np.empty((0, 3))
        frames = [(self.data.geom_xmat[geom].reshape(3, 3), self.data.geom_xpos[geom]) for geom in geoms]
        return np.concatenate([self._samples[geom] @ turn.T + at for geom, (turn, at) in zip(geoms, frames)])


def _samples(model: mujoco.MjModel, geom: int) -> np.ndarray:
    """Returns (N, 3) points of a geom in its frame: a mesh's vertices, else a grid in the bounding box."""
    if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = int(model.geom_dataid[geom])
        first = int(model.mesh_vertadr[mesh])
        return np.array(model.mesh_vert[first : first + int(model.mesh_vertnum[mesh])], float)
    centre, half = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
    counts = np.clip(np.ceil(2 * half / _SAMPLE_M).astype(int) + 1, 2, _MAX_SAMPLES)
    axes = [np.linspace(c - h, c + h, n) for c, h, n in zip(centre, half, counts)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
