"""What is known of a compiled LIBERO scene besides its model: names, the controller's constants, the goal.

It is plain data, written as JSON beside the model, so that neither robosuite nor BDDL is needed to simulate. Names
rather than numbers stand in it: the same record serves the exact and the fast model.
"""

from typing import Literal

import msgspec

FORMAT = 3

Kind = Literal["on_object", "on_site", "in_site", "joints"]


class Condition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One predicate of the goal, with LIBERO's own criterion; a goal is the conjunction of its conditions.

    on_object: body `lower` is not above body `item` (z), they touch, and their centres are within 0.03 m in (x, y).
    on_site: `item` lies within the site's area and up to 0.10 m above it, and touches `lower` where there is one.
    in_site: `item` lies within the box around the turned site (0.01 m lower at the bottom).
    joints: `any` or all of the joints are beyond `threshold` [m or rad], above or below it.
    touching: names of the geoms of either side, one of each must be in contact.
    """

    kind: Kind
    item: str = ""
    lower: str = ""
    site: str = ""
    size_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    touching: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    joints: tuple[str, ...] = ()
    threshold: float = 0.0
    above: bool = False
    any: bool = False


class BodyPose(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a fixture stands: position [m] and quaternion (w, x, y, z) relative to its parent."""

    position_m: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]


class Indicator(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A site that is shown while a joint is at or beyond `threshold` [rad]: a stove's burner."""

    site: str
    joint: str
    threshold: float


class SceneRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """objects, fixtures: BDDL name -> root body. goal: the BDDL predicates as written, lower case.

    home_rad: arm joints that the null space is drawn to, (7,). home_position_m, home_rotation: the end effector there,
    (3,) and row by row (9,); the rotation is the goal until the first rotation command.
    """

    format: int
    suite: str
    number: int
    name: str
    language: str
    package_version: str
    objects: dict[str, str]
    fixtures: dict[str, str]
    fixture_pose: dict[str, BodyPose]
    goal: tuple[tuple[str, ...], ...]
    conditions: tuple[Condition, ...]
    indicators: tuple[Indicator, ...]
    arm_joints: tuple[str, ...]
    arm_actuators: tuple[str, ...]
    finger_joints: tuple[str, ...]
    finger_actuators: tuple[str, ...]
    grip_site: str
    hand_body: str
    torque_limit_nm: tuple[tuple[float, float], ...]
    home_rad: tuple[float, ...]
    home_position_m: tuple[float, ...]
    home_rotation: tuple[float, ...]
    cameras: dict[str, str]
