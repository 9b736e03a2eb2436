from pathlib import Path

import msgspec
import numpy as np
import pytest

from rehearsal.cell import read_cell
from rehearsal.errors import RehearsalError
from rehearsal.spec import ActionSpec
from training.policies.rdt.unified_action import UnifiedLayout, fitted_layout, published_layout

CELLS = Path(__file__).parents[3] / "launch/cells"


@pytest.fixture
def single() -> ActionSpec:
    return read_cell(CELLS / "single_piper.toml").action_spec()


@pytest.fixture
def dual() -> ActionSpec:
    return read_cell(CELLS / "dual_piper.toml").action_spec()


def test_one_arm_uses_the_right_arms_slots(single: ActionSpec) -> None:
    layout = published_layout(single)
    assert layout.slots == (0, 1, 2, 3, 4, 5, 10)
    assert np.flatnonzero(layout.mask()).tolist() == [0, 1, 2, 3, 4, 5, 10] and layout.mask().shape == (128,)
    state = layout.state(np.array([0.1, 0.2, -0.3, 0.4, 0.5, -0.6, 0.035], dtype=np.float32))
    assert state[:6] == pytest.approx([0.1, 0.2, -0.3, 0.4, 0.5, -0.6])
    assert state[10] == pytest.approx(0.5), "0.035 of an opening of 0.07 m"
    assert not state[11:].any() and not state[6:10].any()


def test_two_arms_use_both_sides_whatever_their_order(dual: ActionSpec) -> None:
    layout = published_layout(dual)
    assert layout.slots == (50, 51, 52, 53, 54, 55, 60, 0, 1, 2, 3, 4, 5, 10)
    turned = [*range(7, 14), *range(7)]
    swapped = msgspec.structs.replace(
        dual, **{name: tuple(getattr(dual, name)[i] for i in turned) for name in ("names", "lower", "upper")}
    )
    assert published_layout(swapped).slots == (0, 1, 2, 3, 4, 5, 10, 50, 51, 52, 53, 54, 55, 60)


def test_actions_come_back_from_their_slots(dual: ActionSpec) -> None:
    rng = np.random.default_rng(0)
    state = rng.normal(size=(5, 14)).astype(np.float32)
    actions = rng.normal(size=(5, 8, 14)).astype(np.float32)
    fitted = fitted_layout(dual, state, actions)
    for layout in (published_layout(dual), fitted):
        np.testing.assert_allclose(layout.decode(layout.encode(actions, state), state), actions, atol=1e-5)
    joints = [i for i, gripper in enumerate(dual.grippers) if not gripper]
    encoded = fitted.encode(actions, state)[..., joints]
    np.testing.assert_allclose(encoded.mean((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(encoded.std((0, 1)), 1, atol=1e-4)
    assert fitted.size == 14 and fitted.mask().all()


def test_a_gripper_that_closes_upwards_is_still_open_at_one(single: ActionSpec) -> None:
    layout = published_layout(msgspec.structs.replace(single, gripper_sign=-1))
    assert layout.state(np.array([0, 0, 0, 0, 0, 0, 0.0]))[10] == pytest.approx(1)
    assert layout.state(np.array([0, 0, 0, 0, 0, 0, 0.07]))[10] == pytest.approx(0)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"mode": "delta"}, "RDT plays absolute joint targets here; these actions are delta ones in the frame joint"),
        ({"names": ("x", *"bcdef", "arm_gripper")}, "no slot for action 'x'"),
        ({"names": ("arm_joint11", *(f"arm_joint{i}" for i in range(2, 7)), "arm_gripper")}, "at most 10 joints"),
        ({"units": ("deg", *("rad",) * 5, "m")}, "joint slots are in rad; action arm_joint1 is in deg"),
    ],
)
def test_a_layout_without_slots_is_refused(single: ActionSpec, changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(RehearsalError, match=complaint):
        published_layout(msgspec.structs.replace(single, **changes))


def test_two_arms_without_sides_are_refused(dual: ActionSpec) -> None:
    named = msgspec.structs.replace(dual, names=tuple(name.replace("left", "first") for name in dual.names))
    with pytest.raises(RehearsalError, match="two named left and right; this workplace's are first, right"):
        published_layout(named)


def test_a_state_of_another_length_and_a_slot_taken_twice_are_refused(single: ActionSpec) -> None:
    with pytest.raises(RehearsalError, match="takes a state of 7 values, got 14"):
        published_layout(single).state(np.zeros((1, 14)))
    with pytest.raises(ValueError, match="slots must differ and be in 0 to 1"):
        UnifiedLayout(
            size=2, slots=(1, 1), state_offset=(0.0, 0.0), state_scale=(1.0, 1.0), action_offset=(0.0, 0.0),
            action_scale=(1.0, 1.0), relative=(False, False),
        )  # fmt: skip
