"""Compiled scenes and initial states: what is kept, what is drawn, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rehearsal.errors import RehearsalError
from rehearsal.simulation import scenarios
from training.simulators.libero import initial_states as states
from training.simulators.libero.package import libero_task
from training.simulators.libero.scene import LiberoScene, load_scene


@pytest.fixture(scope="module")
def scene() -> LiberoScene:
    return load_scene(libero_task("libero_spatial", 0), "exact")


def test_a_split_is_drawn_when_asked_for_and_then_kept(
    scene: LiberoScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = states.initial_states(scene.task, scene.folder, "train")
    assert drawn.shape == (50, scene.model.nq) and len(np.unique(drawn[:, 0])) == 50
    monkeypatch.setitem(states.DRAWN_STATES, "train", 2)
    again = states.initial_states(scene.task, tmp_path, "train")
    np.testing.assert_array_equal(
        again, drawn[:2]
    )  # a seed's state does not depend on what was drawn beside it
    assert [path.name for path in tmp_path.iterdir()] == ["train_2.npy"]
    monkeypatch.setattr(states, "stock_environment", None)
    states._initial_states.cache_clear()
    np.testing.assert_array_equal(states.initial_states(scene.task, tmp_path, "train"), again)


def test_a_stored_state_is_split_into_positions_and_speeds(scene: LiberoScene) -> None:
    qpos, qvel = scene.initial_state(scenarios(scene.task.task, "stored", 50)[49])
    row = scene.task.stored_states()[49]
    np.testing.assert_array_equal(np.concatenate([qpos, qvel]), row[1:])
    with pytest.raises(
        RehearsalError, match="libero_spatial.0 has 50 initial states of split stored, not 51"
    ):
        scene.initial_state(scenarios(scene.task.task, "stored", 51)[50])


def test_states_of_another_scene_are_refused(scene: LiberoScene) -> None:
    other = replace(scene.task, states=libero_task("libero_object", 0).states)
    width = other.stored_states().shape[1]
    message = rf"libero_spatial.0 are of another scene: {width} values each, but this one has 1 \+ 48 \+ 43"
    with pytest.raises(RehearsalError, match=message):
        replace(scene, task=other).initial_state(scenarios(scene.task.task, "stored", 1)[0])


def test_both_settings_move_alike_but_for_sleep(scene: LiberoScene) -> None:
    fast = load_scene(scene.task, "fast").model
    exact = scene.model
    assert (fast.opt.enableflags ^ exact.opt.enableflags).bit_count() == 1
    assert fast.opt.timestep == exact.opt.timestep and fast.nmeshface < exact.nmeshface
    for name in ("body_mass", "body_pos", "geom_friction", "dof_damping", "actuator_ctrlrange"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(exact, name))
    collides = (exact.geom_contype | exact.geom_conaffinity) != 0
    np.testing.assert_array_equal(fast.geom_size[collides], exact.geom_size[collides])
