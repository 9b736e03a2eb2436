"""The geoms of an abstract scene as one array, and which of them cannot reach a picture.

mujoco's binding shows them one by one; a hundred a picture would cost more than drawing some of them. So the buffer
is read in place, laid out as `mjvGeom` in mujoco/mjvisualize.h.
"""

import ctypes

import mujoco
import numpy as np

_LAYOUT = np.dtype(
    {
        "names": ["type", "objtype", "objid", "size", "pos", "mat", "reflectance", "modelrbound"],
        "formats": ["i4", "i4", "i4", ("f4", 3), ("f4", 3), ("f4", (3, 3)), "f4", "f4"],
        "offsets": [0, 8, 12, 40, 52, 64, 128, 244],
        "itemsize": 252,
    }
)
_PLANE, _BOX = int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_BOX)
_SITE = int(mujoco.mjtObj.mjOBJ_SITE)
_SLACK = 1.001  # single precision, and the half-angle rounded


class SceneGeoms:
    """A view on a scene's buffer of geoms; it lives as long as the scene."""

    def __init__(self, scene: mujoco.MjvScene) -> None:
        first = scene.geoms[0].pos.__array_interface__["data"][0] - _LAYOUT.fields["pos"][1]  # type: ignore[index]
        if scene.maxgeom > 1:
            second = scene.geoms[1].pos.__array_interface__["data"][0] - _LAYOUT.fields["pos"][1]  # type: ignore[index]
            assert second - first == _LAYOUT.itemsize, f"mjvGeom has {second - first} bytes"
        size = _LAYOUT.itemsize * scene.maxgeom
        buffer = (ctypes.c_uint8 * size).from_address(first)
        self.raw = np.frombuffer(buffer, np.uint8).reshape(scene.maxgeom, _LAYOUT.itemsize)
        self.fields = self.raw.view(_LAYOUT).reshape(-1)
        self._scene = scene

    def sites_other_than(self, count: int, shown: tuple[int, ...]) -> np.ndarray:
        """Returns bool (count,): true for sites that are not among the ids `shown`."""
        geoms = self.fields[:count]
        return (geoms["objtype"] == _SITE) & ~np.isin(geoms["objid"], shown)


def drop_geoms(scene: mujoco.MjvScene, geoms: SceneGeoms, dropped: np.ndarray) -> None:
    """Takes the geoms marked in bool (ngeom,) out of the scene; the others keep their order."""
    kept = np.flatnonzero(~dropped)
    if len(kept) < scene.ngeom:
        geoms.raw[: len(kept)] = geoms.raw[kept]
        scene.ngeom = len(kept)


def geoms_out_of_sight(scene: mujoco.MjvScene, geoms: SceneGeoms, *, reflections: bool) -> np.ndarray:
    """Returns bool (ngeom,): true for geoms of which no pixel can show, in a square picture, mirrors included.

    Geoms without a bounding sphere (planes, sites) count as in sight.
    """
    found = geoms.fields[: scene.ngeom]
    centre, radius = found["pos"].astype(float), found["modelrbound"] * _SLACK
    unbounded = (found["modelrbound"] <= 0) | (found["type"] == _PLANE)
    seen = unbounded | _in_sight(scene, centre, radius)
    if reflections:
        mirrors = (found["reflectance"] > 0) & np.isin(found["type"], (_PLANE, _BOX)) & seen
        for mirror in np.flatnonzero(mirrors):
            normal = found["mat"][mirror][:, 2].astype(float)
            lift = found["size"][mirror][2] if found["type"][mirror] == _BOX else 0.0
            height = (centre - (centre[mirror] + lift * normal)) @ normal
            seen |= _in_sight(scene, centre - 2 * height[:, None] * normal, radius)
    return ~seen


def _in_sight(scene: mujoco.MjvScene, centre: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Returns which spheres (N, 3), (N,) touch the pyramid that the camera sees."""
    # The picture's camera lies midway between the eyes of a stereo pair.
    left, right = scene.camera
    eye = (left.pos.astype(float) + right.pos) / 2
    forward = left.forward.astype(float)
    up = left.up.astype(float)
    side = np.cross(forward, up)
    slope = _SLACK * max(abs(left.frustum_top), abs(left.frustum_bottom)) / left.frustum_near
    offset = centre - eye
    depth = offset @ forward
    seen = depth > -radius
    steepness = np.sqrt(1 + slope**2)
    for axis in (up, side):
        seen &= np.abs(offset @ axis) - slope * depth < radius * steepness
    return seen
