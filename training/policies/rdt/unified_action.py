"""RDT's unified action space: one vector of slots with a physical meaning, the same for every robot.

The 128 slots (Liu et al. 2024, section 4.2 and appendix; thu-ml/RoboticsDiffusionTransformer, configs/state_vec.py):
right arm: joint positions 0-9 [rad], gripper joints 10-14 (10: opening, 1 = open), joint velocities 15-24, gripper
velocities 25-29, end effector 30-44 (position, 6D rotation, velocity, angular velocity); left arm: the same from 50
on (joints 50-59, gripper 60-64, ...); base velocity 100-102; the rest is reserved. A robot with one arm uses the right
arm's slots. A slot that a robot does not use is 0, and 0 in the mask; a joint is in radians, without statistics.

A small model trained here has an action space of its own: as many slots as the robot has values, normalised.
"""

import re

import msgspec
import numpy as np

from rehearsal.errors import RehearsalError
from rehearsal.spec import ActionSpec

SLOTS = 128
JOINT_SLOTS = {"right": 0, "left": 50}
GRIPPER_SLOTS = {"right": 10, "left": 60}
MOST_JOINTS = 10
# Below these standard deviations a value does not vary but for noise, which normalising would blow up: half a degree of
# a measured joint, a degree of its motion within a chunk; a centimetre of a measured gripper.
STATE_STD_FLOOR = 0.01
ACTION_STD_FLOOR = 0.02
_JOINT = re.compile(r"(?P<arm>\w+)_joint(?P<number>[1-9]\d*)")


class UnifiedLayout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where each value of a robot's states and absolute actions goes, and how it is scaled.

    size: U. slots: one entry a value of the spec, as every list here. A slot holds (value - offset) / scale. relative:
    the action's value is first taken as an offset from the measured state.
    """

    size: int
    slots: tuple[int, ...]
    state_offset: tuple[float, ...]
    state_scale: tuple[float, ...]
    action_offset: tuple[float, ...]
    action_scale: tuple[float, ...]
    relative: tuple[bool, ...]

    def __post_init__(self) -> None:
        lists = (self.state_offset, self.state_scale, self.action_offset, self.action_scale, self.relative)
        if any(len(values) != len(self.slots) for values in lists):
            raise ValueError("offsets, scales and relative need one entry a slot")
        if len(set(self.slots)) != len(self.slots) or not all(0 <= slot < self.size for slot in self.slots):
            raise ValueError(f"slots must differ and be in 0 to {self.size - 1}, got {self.slots}")
        if any(scale == 0 for scale in (*self.state_scale, *self.action_scale)):
            raise ValueError("a scale must not be 0")

    def mask(self) -> np.ndarray:
        """Returns float32 (U,): 1 in the slots that the robot uses."""
        return self._place(np.ones(len(self.slots)))

    def state(self, state: np.ndarray) -> np.ndarray:
        """Returns float32 (..., U) of a measured state (..., A)."""
        if state.shape[-1] != len(self.slots):
            raise RehearsalError(f"the policy takes a state of {len(self.slots)} values, got {state.shape[-1]}")
        return self._place((state - np.asarray(self.state_offset)) / np.asarray(self.state_scale))

    def encode(self, actions: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Returns float32 (..., T, U) of actions (..., T, A) seen from the measured state (..., A)."""
        values = actions - self._origin(state)
        return self._place((values - np.asarray(self.action_offset)) / np.asarray(self.action_scale))

    def decode(self, unified: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Returns actions float32 (..., T, A) of unified ones (..., T, U); what is in unused slots is dropped."""
        values = unified[..., list(self.slots)] * np.asarray(self.action_scale) + np.asarray(self.action_offset)
        return (values + self._origin(state)).astype(np.float32)

    def _place(self, values: np.ndarray) -> np.ndarray:
        unified = np.zeros((*values.shape[:-1], self.size), dtype=np.float32)
        unified[..., list(self.slots)] = values
        return unified

    def _origin(self, state: np.ndarray) -> np.ndarray:
        return np.where(self.relative, state, 0.0)[..., None, :]


def published_layout(spec: ActionSpec) -> UnifiedLayout:
    """Returns where RDT-1B has a robot of one or two arms: joints in rad, grippers from 0 (closed) to 1 (open).

    Raises RehearsalError for a spec that is not of absolute joint targets, or that RDT has no slots for.
    """
    _check_absolute(spec)
    slots, offset, scale = [], [], []
    for name, unit, gripper, lower, upper in zip(spec.names, spec.units, spec.grippers, spec.lower, spec.upper):
        side, joint = _place_of(name, gripper, spec)
        slots.append(GRIPPER_SLOTS[side] if joint is None else JOINT_SLOTS[side] + joint)
        closed, opened = (lower, upper) if spec.gripper_sign > 0 else (upper, lower)
        offset.append(closed if gripper else 0.0)
        scale.append(opened - closed if gripper else 1.0)
        if not gripper and unit != "rad":
            raise RehearsalError(f"RDT's joint slots are in rad; action {name} is in {unit}")
    return UnifiedLayout(
        size=SLOTS,
        slots=tuple(slots),
        state_offset=tuple(offset),
        state_scale=tuple(scale),
        action_offset=tuple(offset),
        action_scale=tuple(scale),
        relative=(False,) * spec.dim,
    )


def fitted_layout(spec: ActionSpec, state: np.ndarray, actions: np.ndarray) -> UnifiedLayout:
    """Returns a layout of its own for a small model: a slot a value, normalised over demonstrations.

    state: (N, A), measured. actions: (N, T, A), seen from it. Joints are offsets from the measured state in standard
    deviations, grippers go from -1 to 1 over the spec's bounds. Raises RehearsalError unless actions are absolute.
    """
    _check_absolute(spec)
    grippers = np.array(spec.grippers)
    values = (actions - np.where(grippers, 0.0, state)[:, None]).astype(np.float64)
    lower, upper = np.array(spec.lower), np.array(spec.upper)
    mean, std = values.mean(axis=(0, 1)), np.maximum(values.std(axis=(0, 1)), ACTION_STD_FLOOR)
    return UnifiedLayout(
        size=spec.dim,
        slots=tuple(range(spec.dim)),
        state_offset=tuple(state.mean(axis=0, dtype=np.float64).tolist()),
        state_scale=tuple(np.maximum(state.std(axis=0, dtype=np.float64), STATE_STD_FLOOR).tolist()),
        action_offset=tuple(np.where(grippers, (lower + upper) / 2, mean).tolist()),
        action_scale=tuple(np.where(grippers, (upper - lower) / 2, std).tolist()),
        relative=tuple((~grippers).tolist()),
    )


def _check_absolute(spec: ActionSpec) -> None:
    if spec.mode != "absolute" or spec.frame != "joint":
        raise RehearsalError(
            f"RDT plays absolute joint targets here; these actions are {spec.mode} ones in the frame {spec.frame}"
        )


def _place_of(name: str, gripper: bool, spec: ActionSpec) -> tuple[str, int | None]:
    """Returns the side of an arm and its joint counted from 0, None for the gripper."""
    match = _JOINT.fullmatch(name)
    if not gripper and match is None:
        raise RehearsalError(f"RDT has no slot for action {name!r}; it has some for ARM_joint1, ... and ARM_gripper")
    arm = name.removesuffix("_gripper") if match is None else match["arm"]
    number = None if match is None else int(match["number"]) - 1
    if number is not None and number >= MOST_JOINTS:
        raise RehearsalError(f"RDT has no slot for action {name!r}: an arm has at most {MOST_JOINTS} joints")
    arms = sorted({other.rpartition("_")[0] for other in spec.names})
    if len(arms) == 1:
        return "right", number
    if arm not in JOINT_SLOTS:
        raise RehearsalError(
            f"RDT has slots for one arm, or for two named left and right; this workplace's are {', '.join(arms)}"
        )
    return arm, number
