"""The geoms of an abstract scene as one array, and which of them cannot reach a picture.

mujoco's binding shows them one by one; a hundred a picture would cost more than drawing some of them. So the buffer
is read in place, laid out as `mjvGeom` in mujoco/mjvisualize.h.
"""

import ctypes

import mujoco
import numpy as np

_LAYOUT = np.dtype(
    {
        "names": ["type", "objtype", "objid", "size", "pos", "mat", "rgba", "reflectance", "transparent"],
        "formats": ["i4", "i4", "i4", ("f4", 3), ("f4", 3), ("f4", (3, 3)), ("f4", 4), "f4", "u1"],
        "offsets": [0, 8, 12, 40, 52, 64, 100, 128, 248],
        "itemsize": 252,
    }
)
_PLANE, _BOX = int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_BOX)
_GEOM, _SITE = int(mujoco.mjtObj.mjOBJ_GEOM), int(mujoco.mjtObj.mjOBJ_SITE)
_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
_OPAQUE = 0.999  # MuJoCo's own limit
_SLACK_M = 1e-4  # for single precision


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


def take_glass(scene: mujoco.MjvScene, geoms: SceneGeoms) -> list[tuple[np.ndarray, float]]:
    """Takes transparent geoms out of the scene; returns each, made opaque, with its opacity."""
    found = geoms.fields[: scene.ngeom]
    is_glass = found["rgba"][:, 3] < _OPAQUE
    if not is_glass.any():
        return []
    # MuJoCo blends the back of a transparent geom as well as its front.
    opacity = 1.0 - (1.0 - found["rgba"][is_glass, 3].clip(0.0, 1.0)) ** 2
    found["rgba"][is_glass, 3] = 1.0
    found["transparent"][is_glass] = 0
    rows = geoms.raw[np.flatnonzero(is_glass)].copy()
    drop_geoms(scene, geoms, is_glass)
    return [(row, float(share)) for row, share in zip(rows, opacity, strict=True) if share > 0]


def geoms_out_of_sight(
    model: mujoco.MjModel, scene: mujoco.MjvScene, geoms: SceneGeoms, *, reflections: bool
) -> np.ndarray:
    """Returns bool (ngeom,): true for geoms of which no pixel can show, in a square picture, mirrors included.

    A geom is out of sight when its bounding box lies outside one side of the pyramid that the camera sees. Planes
    and sites count as in sight.
    """
    found = geoms.fields[: scene.ngeom]
    boxed = (found["objtype"] == _GEOM) & (found["type"] != _PLANE)
    box = model.geom_aabb[np.where(boxed, found["objid"], 0)]
    local = box[:, None, :3] + _CORNERS * box[:, None, 3:]
    corners = np.einsum("gij,gcj->gci", found["mat"].astype(float), local) + found["pos"][:, None]
    seen = ~boxed | _in_sight(scene, corners)
    if reflections:
        for mirror in np.flatnonzero(
            (found["reflectance"] > 0) & np.isin(found["type"], (_PLANE, _BOX)) & seen
        ):
            normal = found["mat"][mirror][:, 2].astype(float)
            lift = found["size"][mirror][2] if found["type"][mirror] == _BOX else 0.0
            height = (corners - (found["pos"][mirror] + lift * normal)) @ normal
            seen |= _in_sight(scene, corners - 2 * height[..., None] * normal)
    return ~seen


def _in_sight(scene: mujoco.MjvScene, corners: np.ndarray) -> np.ndarray:
    """Returns which boxes, given by their corners (N, 8, 3), are not wholly outside one side of the pyramid."""
    # The picture's camera lies midway between the eyes of a stereo pair.
    left, right = scene.camera
    forward, up = left.forward.astype(float), left.up.astype(float)
    slope = max(abs(left.frustum_top), abs(left.frustum_bottom)) / left.frustum_near
    offset = corners - (left.pos.astype(float) + right.pos) / 2
    reach = slope * (offset @ forward) + _SLACK_M
    seen = (offset @ forward > -_SLACK_M).any(axis=1)
    for axis in (up, np.cross(forward, up)):
        across = offset @ axis
        seen &= (across < reach).any(axis=1) & (-across < reach).any(axis=1)
    return seen
