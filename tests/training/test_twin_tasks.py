"""The success criteria on both sides of their boundaries, and what every scenario must keep: nothing is done yet."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import mujoco
import numpy as np
import pytest

from rehearsal.cell import read_cell
from rehearsal.errors import RehearsalError
from rehearsal.simulation import scenarios
from training.simulators.twin import objects
from training.simulators.twin.randomisation import draw_situation, generator
from training.simulators.twin.simulator import TwinSimulator
from training.simulators.twin.tasks import TASKS, SceneState, task_named

CELLS = Path(__file__).parents[2] / "launch/cells"
SINGLE = read_cell(CELLS / "single_piper.toml")
UPRIGHT = (0.0, 0.0, 1.0)
OPEN, FAR = 0.07, (0.2, 0.0, 0.5)


def leaning(cosine: float) -> tuple[float, float, float]:
    return (float(np.sqrt(1 - cosine**2)), 0.0, cosine)


def state(
    positions: dict[str, Any],
    *,
    up: dict[str, Any] | None = None,
    speed: dict[str, float] | None = None,
    button: float = 0.0,
    opening: float = OPEN,
    tool: tuple[float, float, float] = FAR,
) -> SceneState:
    return SceneState(
        position={name: np.array(place) for name, place in positions.items()},
        up={name: np.array((up or {}).get(name, UPRIGHT)) for name in positions},
        speed={name: (speed or {}).get(name, 0.0) for name in positions},
        button=button,
        opening=np.array([opening]),
        tool=np.array([tool]),
    )


def test_the_bell_rings_at_three_fifths_of_its_travel() -> None:
    edge = 0.6 * objects.BELL_TRAVEL_M
    rung = TASKS["click_bell"].succeeded
    assert rung(state({}, button=edge + 1e-6)) and not rung(state({}, button=edge - 1e-6))


@pytest.mark.parametrize(
    ("change", "success"),
    [
        ({}, True),
        ({"z": 0.081}, True),
        ({"z": 0.079}, False),
        ({"z": 0.0}, False),
        ({"cosine": 0.81}, True),
        ({"cosine": 0.79}, False),
        ({"opening": 0.049}, True),
        ({"opening": 0.051}, False),  # thrown up, not held
        ({"beside": 0.059}, True),
        ({"beside": 0.061}, False),
    ],
)
def test_the_bottle_is_picked_when_it_is_held_high_and_upright(change: dict[str, float], success: bool) -> None:
    c = {"z": 0.12, "cosine": 1.0, "opening": 0.022, "beside": 0.0} | change
    up = leaning(c["cosine"])
    neck = np.array([0.3, 0.0, c["z"]]) + objects.BOTTLE_NECK_M * np.array(up)
    held = state(
        {"bottle": (0.3, 0.0, c["z"])},
        up={"bottle": up},
        opening=c["opening"],
        tool=(neck[0], neck[1] + c["beside"], neck[2]),
    )
    assert TASKS["pick_bottle"].succeeded(held) is success


COASTER = {"coaster": (0.30, 0.1, 0.0)}
ON = objects.COASTER_HEIGHT_M


@pytest.mark.parametrize(
    ("change", "success"),
    [
        ({}, True),
        ({"x": 0.329}, True),
        ({"x": 0.331}, False),
        ({"z": ON + 0.003}, True),
        ({"z": ON + 0.005}, False),
        ({"z": 0.0}, False),  # pushed there along the table
        ({"cosine": 0.98}, True),
        ({"cosine": 0.96}, False),
        ({"speed": 0.04}, True),
        ({"speed": 0.06}, False),
        ({"opening": 0.056, "tool": (0.30, 0.1, 0.06)}, True),
        ({"opening": 0.054, "tool": (0.30, 0.1, 0.06)}, False),  # still held
        ({"opening": 0.0, "tool": (0.30, 0.1, 0.2)}, True),
    ],
)
def test_the_cup_is_placed_when_it_stands_on_the_coaster_alone(change: dict[str, Any], success: bool) -> None:
    c = {"x": 0.30, "z": ON, "cosine": 1.0, "speed": 0.0, "opening": OPEN, "tool": FAR} | change
    placed = state(
        COASTER | {"cup": (c["x"], 0.1, c["z"])},
        up={"cup": leaning(c["cosine"])},
        speed={"cup": c["speed"]},
        opening=c["opening"],
        tool=c["tool"],
    )
    assert TASKS["place_empty_cup"].succeeded(placed) is success


@pytest.mark.parametrize(
    ("change", "success"),
    [
        ({}, True),
        ({"x": 0.319}, True),
        ({"x": 0.321}, False),
        ({"z": 0.009}, True),
        ({"z": 0.007}, False),
        ({"z": 0.026}, True),
        ({"z": 0.028}, False),
        ({"z": 0.0, "x": 0.43}, False),
        ({"cosine": 0.96}, True),
        ({"cosine": 0.94}, False),
        ({"lower_cosine": 0.94}, False),
        ({"speed": 0.06}, False),
        ({"opening": 0.046, "tool": (0.30, 0.15, 0.06)}, True),
        ({"opening": 0.044, "tool": (0.30, 0.15, 0.06)}, False),
    ],
)
def test_bowls_are_stacked_when_one_stands_in_the_other(change: dict[str, Any], success: bool) -> None:
    nested = {"x": 0.30, "z": objects.BOWL_RIM_HEIGHT_M, "cosine": 1.0, "lower_cosine": 1.0, "speed": 0.0}
    c = nested | {"opening": OPEN, "tool": FAR} | change
    stacked = state(
        {"bowl": (c["x"], 0.1, c["z"]), "target_bowl": (0.30, 0.1, 0.0)},
        up={"bowl": leaning(c["cosine"]), "target_bowl": leaning(c["lower_cosine"])},
        speed={"bowl": c["speed"]},
        opening=c["opening"],
        tool=c["tool"],
    )
    assert TASKS["stack_bowls"].succeeded(stacked) is success


def test_an_unknown_task_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(RehearsalError, match=r"fold_towel.*click_bell, pick_bottle, place_empty_cup, stack_bowls"):
        task_named("fold_towel")


@pytest.mark.parametrize("task", TASKS)
def test_horizons_hold_whole_chunks_of_ten(task: str) -> None:
    assert TASKS[task].horizon_steps % 10 == 0 and len(set(TASKS[task].instructions)) >= 4


@pytest.mark.parametrize("name", ["single_piper", "dual_piper"])
@pytest.mark.parametrize("task", TASKS)
def test_no_scenario_begins_solved_or_with_things_in_each_other(name: str, task: str) -> None:
    cell = read_cell(CELLS / f"{name}.toml")
    simulator = TwinSimulator(cell, task, cameras=(), side_px=16, max_worlds=50, threads=1)
    data = mujoco.MjData(simulator.scene.model)
    for first in range(0, 1000, 50):
        simulator.reset(scenarios(task, "train", 50, first))
        assert not simulator.outcomes().success.any()
        for world in range(50):
            model = simulator.world_model(world)
            data.qpos[:] = simulator.qpos([world])[0]
            mujoco.mj_forward(model, data)
            for contact in data.contact:
                touching = {model.body(model.geom_bodyid[g]).name for g in (contact.geom1, contact.geom2)}
                assert "world" in touching and contact.dist > -1e-4, f"{touching} at scenario {first + world}"
    simulator.close()


@pytest.mark.parametrize("task", TASKS)
def test_holding_still_solves_nothing(task: str) -> None:
    simulator = TwinSimulator(SINGLE, task, cameras=(), side_px=16, max_worlds=100)
    simulator.reset(scenarios(task, "train", 100, 500))
    hold = simulator.measure(range(100))
    simulator.step(range(100), np.repeat(hold[:, None], 20, axis=1))
    outcomes = simulator.outcomes()
    simulator.close()
    assert not outcomes.success.any() and (outcomes.steps == 20).all()


@pytest.mark.parametrize("task", TASKS)
def test_splits_and_seeds_draw_different_situations(task: str) -> None:
    drawn = []
    for split in ("train", "validation", "held_out"):
        for scenario in scenarios(task, split, 20):
            situation = draw_situation(generator(scenario), SINGLE, task_named(task))
            drawn.append((*(c for place in situation.places.values() for c in place), *situation.home[0]))
    assert all(np.abs(np.subtract(a, b)).max() > 1e-6 for a, b in pairwise(sorted(drawn)))


def test_places_fill_the_region_and_no_more() -> None:
    task = task_named("click_bell")
    places = [draw_situation(generator(s), SINGLE, task).places["bell"] for s in scenarios("click_bell", "train", 400)]
    spread = np.abs(np.array(places) - (0.33, 0.0)).max(axis=0)
    assert np.all(spread <= SINGLE.randomisation.object_position_m)
    assert np.all(spread > 0.95 * np.array(SINGLE.randomisation.object_position_m))


def test_in_a_cell_with_two_arms_both_get_their_turn() -> None:
    dual = read_cell(CELLS / "dual_piper.toml")
    situations = [draw_situation(generator(s), dual, task_named("pick_bottle")) for s in scenarios("t", "train", 100)]
    assert 30 < sum(s.arm for s in situations) < 70
    assert all(np.sign(s.places["bottle"][1]) == (1 if s.arm == 0 else -1) for s in situations)


def test_without_position_ranges_things_stand_in_the_middle() -> None:
    ranges = msgspec.structs.replace(SINGLE.randomisation, object_position_m=(0.0, 0.0), object_yaw_rad=0.0)
    nominal = msgspec.structs.replace(SINGLE, randomisation=ranges)
    situation = draw_situation(generator(scenarios("t", "train", 1)[0]), nominal, task_named("pick_bottle"))
    assert situation.places["bottle"] == (0.33, 0.0) and situation.yaw["bottle"] == 0.0
