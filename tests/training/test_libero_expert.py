"""LIBERO's scripted expert: its geometry on a scene of four boxes, and whole episodes on the benchmark's tasks."""

from collections.abc import Iterator

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from rehearsal.errors import RehearsalError
from rehearsal.simulation import scenarios
from training.experts.libero.evaluation import evaluate_libero_expert
from training.experts.libero.expert import LiberoExpert
from training.experts.libero.grasp import choose_grasp, pointing_down
from training.experts.libero.motion import (
    CLOSED,
    OPEN,
    PALM_M,
    TIP_M,
    Pose,
    action,
    action_over,
    clear_height,
    rotation_vector,
)
from training.experts.libero.pick_place import carry
from training.experts.libero.scene import Scene, category_of
from training.simulators.libero.simulator import LiberoSimulator

BOXES = """
<mujoco>
  <worldbody>
    <body name="robot0_link2" pos="-0.6 0 0.3">
      <geom size="0.01" contype="0" conaffinity="0"/>
      <body name="gripper0_hand" pos="0.6 0 0.1" quat="0 1 0 0">
        <geom size="0.01"/>
        <site name="gripper0_grip_site"/>
        <joint name="gripper0_finger_joint1" type="slide" axis="1 0 0"/>
        <joint name="gripper0_finger_joint2" type="slide" axis="1 0 0"/>
      </body>
    </body>
    <body name="brick_1_main" pos="0 0 0.02"><freejoint/><geom type="box" size="0.06 0.02 0.02"/></body>
    <body name="wall_1_main" pos="0.3 0.3 0.05"><geom type="box" size="0.01 0.01 0.05"/></body>
    <body name="cube_1_main" pos="0 -0.4 0.02"><freejoint/><geom type="box" size="0.02 0.02 0.02"/></body>
    <body name="left_1_main" pos="0 -0.45 0.02"><geom type="box" size="0.02 0.02 0.02"/></body>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def boxes() -> Scene:
    model = mujoco.MjModel.from_xml_string(BOXES)
    scene = Scene(model)
    scene.data = mujoco.MjData(model)
    mujoco.mj_forward(model, scene.data)
    return scene


def test_category_is_the_name_without_its_number() -> None:
    assert category_of("akita_black_bowl_12") == "akita_black_bowl"
    assert category_of("chefmate_8_frypan_1") == "chefmate_8_frypan"


@pytest.mark.parametrize("angle", [0.0, 1e-7, 0.4, 2.0, 3.1])
def test_rotation_vector_inverts_the_exponential(angle: float) -> None:
    vector = angle * np.array([0.6, -0.48, 0.64])
    np.testing.assert_allclose(rotation_vector(Rotation.from_rotvec(vector).as_matrix()), vector, atol=1e-7)


@pytest.mark.parametrize("angle", [-2.0, 0.0, 0.7, np.pi / 2])
def test_pointing_down_closes_along_the_angle(angle: float) -> None:
    rotation = pointing_down(angle)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    np.testing.assert_allclose(rotation[:, 0], [np.cos(angle), np.sin(angle), 0.0], atol=1e-12)
    np.testing.assert_allclose(rotation[:, 2], [0.0, 0.0, -1.0], atol=1e-12)


def test_the_hand_passes_over_what_its_palm_and_fingers_would_hit() -> None:
    start, end = np.array([0.0, 0.0, 0.5]), np.array([0.4, 0.0, 0.5])
    along_y = pointing_down(np.pi / 2)
    beside = np.array(
        [[0.2, 0.09, 0.3]]
    )  # under the palm, which reaches 10 cm to the sides, not under the fingers
    below = np.array([[0.2, 0.03, 0.3]])
    assert clear_height(beside, start, end, along_y, below_m=TIP_M) == pytest.approx(0.3 - PALM_M + 0.02)
    assert clear_height(below, start, end, along_y, below_m=TIP_M) == pytest.approx(0.3 + TIP_M + 0.02)
    assert clear_height(beside, start, end, pointing_down(0.0), below_m=TIP_M) == -np.inf
    assert clear_height(np.array([[0.6, 0.0, 0.3]]), start, end, along_y, below_m=TIP_M) == -np.inf


def test_an_action_goes_straight_and_within_bounds(boxes: Scene) -> None:
    here = boxes.hand_position
    far = action(boxes, Pose(here + np.array([0.2, -0.4, 0.02]), boxes.hand_rotation), CLOSED)
    assert far.shape == (7,) and far.dtype == np.float32
    np.testing.assert_allclose(
        far[:2], [0.5, -1.0], atol=1e-6
    )  # the longer side at full speed, in the same direction
    np.testing.assert_allclose(far[3:], [0, 0, 0, CLOSED], atol=1e-6)
    assert 0.0 < far[2] < 1.0


def test_a_hand_below_its_way_climbs_before_it_crosses(boxes: Scene) -> None:
    here = boxes.hand_position
    over = Pose(here + np.array([0.3, 0.0, 0.0]), boxes.hand_rotation)
    low = action_over(boxes, over, OPEN, travel_z=here[2] + 0.2)
    assert low[0] == pytest.approx(0.0, abs=1e-6) and low[2] == pytest.approx(1.0)
    high = action_over(boxes, over, OPEN, travel_z=here[2])
    assert high[0] == pytest.approx(1.0) and abs(high[2]) < 1e-6


def test_a_brick_is_taken_across_its_narrow_side(boxes: Scene) -> None:
    position, rotation = choose_grasp(boxes, "brick_1").world(boxes, "brick_1")
    np.testing.assert_allclose(position[:2], 0.0, atol=1e-3)
    assert abs(rotation[1, 0]) == pytest.approx(1.0)  # closes along y


def test_a_neighbour_turns_the_hand(boxes: Scene) -> None:
    _, rotation = choose_grasp(boxes, "cube_1").world(boxes, "cube_1")
    assert abs(rotation[0, 0]) > 0.9  # along x: a finger does not fit between the cube and the box left of it


def test_a_grasp_follows_its_object(boxes: Scene) -> None:
    grasp = choose_grasp(boxes, "brick_1")
    before, _ = grasp.world(boxes, "brick_1")
    boxes.data.joint(boxes.model.body("brick_1_main").jntadr[0]).qpos[:] = [
        0.1,
        0.2,
        0.02,
        0.6**0.5,
        0,
        0,
        0.4**0.5,
    ]
    mujoco.mj_forward(boxes.model, boxes.data)
    after, rotation = grasp.world(boxes, "brick_1")
    np.testing.assert_allclose(after - before, [0.1, 0.2, 0.0], atol=2e-3)
    turn = 2 * np.arcsin(0.4**0.5)
    assert abs(rotation[:2, 0] @ [-np.sin(turn), np.cos(turn)]) == pytest.approx(1.0, abs=1e-6)


def test_carrying_ends_when_the_object_is_lost(boxes: Scene) -> None:
    steps = carry(boxes, "brick_1", lambda hold_m: np.array([0.0, 0.3, 0.1]), tolerance_m=(0.01, 0.01))
    assert next(steps)[6] == CLOSED
    boxes.data.joint(boxes.model.body("brick_1_main").jntadr[0]).qpos[2] -= 0.2
    mujoco.mj_forward(boxes.model, boxes.data)
    assert next(steps, None) is None


def test_unknown_goals_and_names_are_named(boxes: Scene) -> None:
    expert = LiberoExpert(boxes.model, [("fold", "brick_1", "cube_1")])
    expert.reset(boxes.data)
    with pytest.raises(RehearsalError, match="no skill for the goal 'fold brick_1 cube_1'"):
        expert.act(boxes.data)
    with pytest.raises(RehearsalError, match="no site 'shelf'"):
        boxes.position("shelf")


def simulator_of(suite: str, number: int) -> LiberoSimulator:
    return LiberoSimulator(
        suite, [number], cameras=(), side_px=16, max_worlds=4, threads=2, horizon_steps=300
    )


@pytest.fixture
def spatial() -> Iterator[LiberoSimulator]:
    simulator = simulator_of("libero_spatial", 0)
    yield simulator
    simulator.close()


def test_the_bowl_gets_on_the_plate(spatial: LiberoSimulator) -> None:
    found = evaluate_libero_expert(spatial, scenarios("libero_spatial.0", "stored", 4))
    assert found.successes == 4
    assert found.steps < 90


def test_the_same_state_is_answered_alike(spatial: LiberoSimulator) -> None:
    chosen = scenarios("libero_spatial.0", "stored", 1)
    played = []
    for _ in range(2):
        spatial.reset(chosen)
        scene, data = spatial.world(0)
        expert = LiberoExpert(scene.model, scene.record.goal)
        expert.reset(data)
        actions = []
        for _ in range(30):
            actions.append(expert.act(data))
            spatial.step([0], actions[-1][None, None])
        played.append(np.stack(actions))
    assert played[0].dtype == np.float32 and np.abs(played[0]).max() <= 1.0
    np.testing.assert_array_equal(played[0], played[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suite", "number"), [("libero_object", 0), ("libero_goal", 0), ("libero_goal", 7), ("libero_10", 3)]
)
def test_skills(suite: str, number: int) -> None:
    """A basket, a drawer pulled open, a knob, a drawer pushed shut."""
    simulator = simulator_of(suite, number)
    try:
        assert evaluate_libero_expert(simulator, scenarios(f"{suite}.{number}", "stored", 2)).successes == 2
    finally:
        simulator.close()
