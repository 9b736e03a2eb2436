"""The things on the table, made of primitives: bell, bottle, cup, coaster, bowls.

A free object has six degrees of freedom; a fixed one (rubber feet, a mat) is placed by moving its body in the
world's copy of the model. Only the shapes that touch carry collisions; the rest is for the eye.
"""

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

OBJECT_GROUP = 2

BELL_HEIGHT_M = 0.062
BELL_TRAVEL_M = 0.008
BOTTLE_NECK_M = 0.105
BOTTLE_HEIGHT_M = 0.125
CUP_HEIGHT_M = 0.085
CUP_RADIUS_M = 0.020
COASTER_HEIGHT_M = 0.008
COASTER_RADIUS_M = 0.045
BOWL_HEIGHT_M = 0.048
BOWL_RIM_HEIGHT_M = 0.018
BOWL_RIM_RADIUS_M = 0.055
BOWL_THICKNESS_M = 0.004
BOWL_BASE_RADIUS_M = 0.024
BOWL_RIM_PLATES = 16
_CONE_PLATES = 10


def add_bell(spec: mujoco.MjSpec, name: str) -> None:
    """A desk bell on rubber feet (fixed); its button travels BELL_TRAVEL_M down against a spring."""
    body = spec.worldbody.add_body(name=name)
    _visual(_cylinder(body, 0.0, 0.012, 0.040, (0.08, 0.08, 0.09)))
    _cylinder(body, 0.012, 0.030, 0.036, (0.80, 0.68, 0.25))
    dome = body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_ELLIPSOID, pos=(0, 0, 0.030), size=(0.036, 0.036, 0.018), group=OBJECT_GROUP
    )
    dome.rgba = (0.85, 0.73, 0.28, 1)
    button = body.add_body(name=f"{name}_button", pos=(0, 0, 0.048))
    button.add_joint(
        name=f"{name}_button",
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=(0, 0, -1),
        range=(0, BELL_TRAVEL_M),
        limited=mujoco.mjtLimited.mjLIMITED_TRUE,
        stiffness=np.array([250.0, 0, 0]),
        damping=np.array([2.0, 0, 0]),
        armature=0.01,
    )
    spec.add_exclude(bodyname1=name, bodyname2=f"{name}_button")
    _cylinder(button, -0.004, BELL_HEIGHT_M - 0.048, 0.011, (0.85, 0.12, 0.10))


def add_bottle(spec: mujoco.MjSpec, name: str) -> None:
    """A small standing bottle (free) with a neck that the gripper can close on."""
    body = _free_body(spec, name)
    _cylinder(body, 0.0, 0.075, 0.024, (0.10, 0.45, 0.20), mass=0.09)
    _visual(_cylinder(body, 0.020, 0.060, 0.0245, (0.93, 0.93, 0.88)))
    _visual(_ellipsoid(body, 0.075, (0.024, 0.024, 0.014), (0.10, 0.45, 0.20)))
    _cylinder(body, 0.075, 0.112, 0.011, (0.10, 0.45, 0.20), mass=0.02)
    _cylinder(body, 0.106, BOTTLE_HEIGHT_M, 0.0125, (0.95, 0.95, 0.95), mass=0.01)


def add_cup(spec: mujoco.MjSpec, name: str) -> None:
    """An empty cup (free); solid to the touch, hollow to the eye."""
    body = _free_body(spec, name)
    _cylinder(body, 0.0, CUP_HEIGHT_M, CUP_RADIUS_M, (0.95, 0.70, 0.10), mass=0.08)
    _visual(_cylinder(body, CUP_HEIGHT_M - 0.002, CUP_HEIGHT_M + 0.0005, 0.017, (0.25, 0.16, 0.02)))
    _visual(_cylinder(body, CUP_HEIGHT_M - 0.010, CUP_HEIGHT_M - 0.004, 0.0206, (0.92, 0.92, 0.92)))


def add_coaster(spec: mujoco.MjSpec, name: str) -> None:
    """A coaster (fixed), thick enough that a cup which is pushed along the table stops at its edge."""
    body = spec.worldbody.add_body(name=name)
    _cylinder(body, 0.0, COASTER_HEIGHT_M, COASTER_RADIUS_M, (0.70, 0.16, 0.14))
    _visual(_cylinder(body, COASTER_HEIGHT_M, COASTER_HEIGHT_M + 0.0005, 0.028, (0.93, 0.88, 0.78)))


def add_bowl(spec: mujoco.MjSpec, name: str, rgb: tuple[float, float, float]) -> None:
    """A bowl (free): a foot, a cone, and an upright rim that parallel fingers can pinch; it nests in its kind.

    The cone of one centres itself in the rim of the other, and rim stands on rim.
    """
    body = _free_body(spec, name)
    _cylinder(body, 0.0, 0.004, BOWL_BASE_RADIUS_M, rgb, mass=0.02)
    collar = BOWL_HEIGHT_M - BOWL_RIM_HEIGHT_M
    _ring(body, _CONE_PLATES, (BOWL_BASE_RADIUS_M, 0.003), (BOWL_RIM_RADIUS_M - 0.010, collar), rgb)
    _ring(body, BOWL_RIM_PLATES, (BOWL_RIM_RADIUS_M, collar), (BOWL_RIM_RADIUS_M, BOWL_HEIGHT_M), rgb)


def _ring(
    body: mujoco.MjsBody,
    plates: int,
    lower: tuple[float, float],
    upper: tuple[float, float],
    rgb: tuple[float, float, float],
) -> None:
    """Adds a ring of plates from (radius, height) to (radius, height); one plate's middle is at half a pitch."""
    slope = np.arctan2(upper[0] - lower[0], upper[1] - lower[1])
    length = np.hypot(upper[0] - lower[0], upper[1] - lower[1])
    radius, height = (lower[0] + upper[0]) / 2, (lower[1] + upper[1]) / 2
    width = (max(lower[0], upper[0]) + BOWL_THICKNESS_M / 2) * np.tan(np.pi / plates)
    for i in range(plates):
        angle = 2 * np.pi * (i + 0.5) / plates
        plate = body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, group=OBJECT_GROUP, mass=0.02 / plates)
        plate.pos = (radius * np.cos(angle), radius * np.sin(angle), height)
        plate.quat = Rotation.from_euler("ZY", (angle, slope)).as_quat(scalar_first=True)
        plate.size = (BOWL_THICKNESS_M / 2, width, length / 2)
        plate.friction = (0.3, 0.005, 0.0001)  # glazed: one slides into the other
        shade = 1.0 if i % 2 else 0.94
        plate.rgba = (*(shade * c for c in rgb), 1)


def _free_body(spec: mujoco.MjSpec, name: str) -> mujoco.MjsBody:
    body = spec.worldbody.add_body(name=name)
    body.add_freejoint(name=name)
    return body


def _cylinder(
    body: mujoco.MjsBody, bottom: float, top: float, radius: float, rgb: tuple[float, ...], mass: float = 0.01
) -> mujoco.MjsGeom:
    return body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        pos=(0, 0, (bottom + top) / 2),
        size=(radius, (top - bottom) / 2, 0),
        rgba=(*rgb, 1),
        mass=mass,
        group=OBJECT_GROUP,
        friction=(0.8, 0.01, 0.0005),
    )


def _ellipsoid(
    body: mujoco.MjsBody, height: float, radii: tuple[float, ...], rgb: tuple[float, ...]
) -> mujoco.MjsGeom:
    return body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_ELLIPSOID, pos=(0, 0, height), size=radii, rgba=(*rgb, 1), group=OBJECT_GROUP
    )


def _visual(geom: mujoco.MjsGeom) -> None:
    geom.contype, geom.conaffinity, geom.mass = 0, 0, 0
