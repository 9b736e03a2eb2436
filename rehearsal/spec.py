"""What an action means. Client and server compare specs when they connect and refuse a mismatch."""

from typing import Literal

import msgspec
import numpy as np


class ActionSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The meaning of every action dimension.

    mode: absolute actions are targets for the measured state, which has the same layout; delta actions are steps
    from where the arm is, and the state has a layout of its own. Every list has one entry a dimension; `lower` and
    `upper` are inclusive bounds in that dimension's unit. `gripper_sign` is +1 where a larger gripper value opens; a
    gripper's name ends in `gripper`.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    frame: str
    mode: Literal["absolute", "delta"]
    gripper_sign: Literal[1, -1]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    rate_hz: float

    def __post_init__(self) -> None:
        lengths = {len(self.names), len(self.units), len(self.lower), len(self.upper)}
        if len(lengths) != 1:
            raise ValueError("names, units, lower and upper need one entry an action dimension")
        if any(not low < high for low, high in zip(self.lower, self.upper)):
            raise ValueError("lower must be below upper in every dimension")
        if not self.rate_hz > 0:
            raise ValueError(f"rate_hz must be positive, got {self.rate_hz}")

    @property
    def dim(self) -> int:
        return len(self.names)

    @property
    def grippers(self) -> tuple[bool, ...]:
        """Which dimensions command a gripper."""
        return tuple(name.endswith("gripper") for name in self.names)

    def differences(self, other: "ActionSpec") -> list[str]:
        """Returns one phrase for each field that differs: `field: own value against other value`."""
        return [
            f"{field}: {mine} against {theirs}"
            for field in self.__struct_fields__
            if (mine := getattr(self, field)) != (theirs := getattr(other, field))
        ]

    def clip(self, actions: np.ndarray) -> np.ndarray:
        """Returns actions (..., A) clipped to the bounds, float32."""
        return np.clip(actions, self.lower, self.upper).astype(np.float32)
