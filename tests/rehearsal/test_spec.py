"""Action specs: what differs is said, what is out of bounds is clipped."""

import msgspec
import numpy as np
import pytest

from rehearsal.spec import ActionSpec


def spec(**change: object) -> ActionSpec:
    fields = {
        "names": ("j1", "gripper"), "units": ("rad", "m"), "frame": "joint", "mode": "absolute", "gripper_sign": 1,
        "lower": (-1.0, 0.0), "upper": (1.0, 0.07), "rate_hz": 20.0,
    }
    return ActionSpec(**(fields | change))  # type: ignore[arg-type]


def test_equal_specs_have_no_differences() -> None:
    assert spec().differences(spec()) == []


def test_each_differing_field_is_told_with_both_values() -> None:
    other = spec(rate_hz=25.0, gripper_sign=-1)
    assert spec().differences(other) == ["gripper_sign: 1 against -1", "rate_hz: 20.0 against 25.0"]


def test_clipping_keeps_what_is_inside() -> None:
    actions = np.array([[-2.0, 0.05], [0.5, 0.2]])
    np.testing.assert_array_equal(spec().clip(actions), np.float32([[-1.0, 0.05], [0.5, 0.07]]))


def test_a_spec_survives_the_wire() -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec()), type=ActionSpec) == spec()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units": ("rad",)}, "one entry an action dimension"),
        ({"lower": (1.0, 0.0)}, "lower must be below upper"),
        ({"upper": (float("nan"), 1.0)}, "lower must be below upper"),
        ({"rate_hz": 0.0}, "rate_hz must be positive, got 0"),
    ],
)
def test_impossible_specs_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec(**change)
