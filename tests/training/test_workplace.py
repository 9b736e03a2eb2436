"""The seam between training and simulators: tasks, full names and scenarios of a twin and of a LIBERO suite."""

from pathlib import Path

import pytest

from rehearsal.errors import RehearsalError
from training.simulators.workplace import Workplace, check_fits, read_workplace

CELL = Path(__file__).parents[2] / "launch/cells/single_piper.toml"


@pytest.fixture(scope="module")
def twin() -> Workplace:
    return read_workplace(CELL)


@pytest.fixture(scope="module")
def spatial() -> Workplace:
    return read_workplace(CELL, "libero_spatial")


def test_a_twin_is_its_cell(twin: Workplace) -> None:
    assert (twin.name, twin.check_task("click_bell"), twin.cameras) == (
        "single_piper",
        "click_bell",
        ("head", "wrist"),
    )
    assert twin.state_names == twin.action_spec.names
    assert [s.seed for s in twin.scenarios("click_bell", "validation", 2, first=3)] == [1_000_003, 1_000_004]


def test_a_suite_has_a_state_of_its_own(spatial: Workplace) -> None:
    assert spatial.name == "libero_spatial" and set(spatial.cameras) == {"agentview", "wrist"}
    assert (spatial.action_spec.dim, spatial.action_spec.mode, len(spatial.state_names)) == (7, "delta", 8)
    assert spatial.action_spec.grippers == (False,) * 6 + (True,)


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("0", "libero_spatial.0"),
        ("libero_spatial.9", "libero_spatial.9"),
        ("all", "libero_spatial"),
        ("libero_spatial", "libero_spatial"),
    ],
)
def test_a_task_by_its_number_or_its_full_name(spatial: Workplace, given: str, full: str) -> None:
    assert spatial.check_task(given) == full == spatial.check_task(full)


@pytest.mark.parametrize("task", ["10", "-1", "+1", "1_0", "", "libero_object.0", "click_bell"])
def test_an_unknown_task_is_told_the_valid_ones(spatial: Workplace, task: str) -> None:
    with pytest.raises(
        RehearsalError, match="unknown task for libero_spatial: .*; valid: 0, 1, 2, .*9, all$"
    ):
        spatial.check_task(task)


def test_scenarios_of_all_tasks_come_in_turn(spatial: Workplace) -> None:
    """The first ten are seed 0 of every task; an offset goes on where the ones before it ended."""
    chosen = spatial.scenarios("all", "train", 23)
    assert [s.task for s in chosen[8:12]] == [f"libero_spatial.{i}" for i in (8, 9, 0, 1)]
    assert [s.seed for s in chosen] == [0] * 10 + [1] * 10 + [2] * 3
    assert spatial.scenarios("all", "train", 11, first=12) == spatial.scenarios("all", "train", 23)[12:]


def test_stored_states_are_as_many_as_the_benchmark_ships(spatial: Workplace) -> None:
    assert (spatial.split_size("3", "stored"), spatial.split_size("all", "stored")) == (50, 500)
    alone = spatial.scenarios("3", "stored", 50)
    assert [s.seed for s in alone] == list(range(3_000_000, 3_000_050))
    assert {s.task for s in alone} == {"libero_spatial.3"}
    message = "scenarios 45 to 55 of libero_spatial.3 asked for; split stored holds 50"
    with pytest.raises(RehearsalError, match=message):
        spatial.scenarios("3", "stored", 10, first=45)


def test_drawn_states_are_as_many_as_a_scene_keeps(spatial: Workplace) -> None:
    for split in ("train", "validation", "held_out"):
        size = spatial.split_size("3", split)
        assert size >= 50 and spatial.split_size("all", split) == 10 * size
        assert spatial.scenarios("3", split, size)[-1].split == split
        with pytest.raises(RehearsalError, match=f"split {split} holds {size}"):
            spatial.scenarios("3", split, size + 1)


def test_an_unknown_suite_or_camera_is_told_the_valid_ones(spatial: Workplace) -> None:
    with pytest.raises(RehearsalError, match="unknown suite 'libero_spatia'; valid: .*libero_spatial"):
        read_workplace(CELL, "libero_spatia")
    with pytest.raises(
        RehearsalError, match="unknown camera for libero_spatial: 'head'; valid: agentview, wrist"
    ):
        spatial.simulator("0", cameras=("head",), side_px=32, max_worlds=1)


def test_a_policy_for_the_twin_is_not_for_a_suite(twin: Workplace, spatial: Workplace) -> None:
    with pytest.raises(RehearsalError, match="runs/sft is not for libero_spatial: names: "):
        check_fits(twin.action_spec, spatial, Path("runs/sft"))
