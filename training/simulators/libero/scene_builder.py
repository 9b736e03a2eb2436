"""From the package's own environment to a compiled scene in the cache: run once a task, by `scene.load_scene`.

The stock environment builds the scene as XML and draws initial states; what simulating needs of it is written down
(see scene_record.py), and it is not used again. Fixtures, which the stock environment moves by up to a centimetre at
every reset of the episode whatever state is then set, stand at the centre of their region here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from rehearsal.errors import RehearsalError
from training.simulators.libero.package import LiberoTask, import_libero, package_version, quiet
from training.simulators.libero.scene_record import FORMAT, BodyPose, Condition, Indicator, SceneRecord

# LIBERO's stored initial states were drawn with this standard deviation on every arm joint [rad]; the benchmark's
# environment no longer adds it (it sets stored states afterwards), so drawn states need it again.
HOME_NOISE_RAD = 0.02

CAMERAS = {"agentview": "agentview", "wrist": "robot0_eye_in_hand"}


@contextmanager
def stock_environment(task: LiberoTask, **options: Any) -> Iterator[Any]:
    """Yields the package's ControlEnv, without cameras unless `options` ask for them, reset with its fixtures pinned.

    Raises RehearsalError when the package lacks the task's goal file.
    """
    if not task.bddl.is_file():
        raise RehearsalError(f"LIBERO's package has no goal file for {task.task}: {task.bddl.name}")
    wrapper = import_libero("libero.libero.envs.env_wrapper")
    without_cameras = {"has_offscreen_renderer": False, "use_camera_obs": False}
    before = np.random.get_state()
    with quiet():
        env = wrapper.ControlEnv(bddl_file_name=str(task.bddl), **(without_cameras | options))
    try:
        env.env.hard_reset = False
        _pin_fixtures(env.env)
        with quiet():
            env.reset()
        yield env
    finally:
        env.close()
        np.random.set_state(before)


def _pin_fixtures(env: Any) -> None:
    """Narrows each fixture's region to its centre."""
    for sampler in env.placement_initializer.samplers.values():
        name = sampler.name.removesuffix("_sampler")
        if name in env.fixtures_dict:
            sampler.x_ranges = [[float(np.mean(pair))] * 2 for pair in sampler.x_ranges]
            sampler.y_ranges = [[float(np.mean(pair))] * 2 for pair in sampler.y_ranges]
            if isinstance(sampler.rotation, (list, tuple, np.ndarray)):
                sampler.rotation = [float(np.mean(sampler.rotation))] * 2


def describe(env: Any, task: LiberoTask) -> SceneRecord:
    """Returns the record of a freshly reset stock environment."""
    inner, model = env.env, env.sim.model
    robot = inner.robots[0]
    return SceneRecord(
        format=FORMAT,
        suite=task.suite,
        number=task.number,
        name=task.name,
        language=task.language,
        package_version=package_version(),
        objects={name: item.root_body for name, item in inner.objects_dict.items()},
        fixtures={name: item.root_body for name, item in inner.fixtures_dict.items()},
        fixture_pose={
            item.root_body: BodyPose(
                position_m=tuple(model.body_pos[model.body_name2id(item.root_body)].tolist()),
                quaternion=tuple(model.body_quat[model.body_name2id(item.root_body)].tolist()),
            )
            for item in inner.fixtures_dict.values()
        },
        goal=tuple(tuple(state) for state in inner.parsed_problem["goal_state"]),
        conditions=tuple(_condition(inner, tuple(state)) for state in inner.parsed_problem["goal_state"]),
        indicators=tuple(_indicators(inner)),
        arm_joints=tuple(robot.robot_model.joints),
        arm_actuators=tuple(robot.robot_model.actuators),
        finger_joints=tuple(robot.gripper.joints),
        finger_actuators=tuple(robot.gripper.actuators),
        grip_site=robot.gripper.important_sites["grip_site"],
        hand_body=robot.robot_model.eef_name,
        torque_limit_nm=tuple((float(low), float(high)) for low, high in zip(*robot.torque_limits)),
        home_rad=tuple(robot.controller.initial_joint.tolist()),
        home_position_m=tuple(robot.controller.initial_ee_pos.tolist()),
        home_rotation=tuple(robot.controller.goal_ori.reshape(-1).tolist()),
        cameras=CAMERAS,
    )


def _condition(env: Any, predicate: tuple[str, ...]) -> Condition:
    kind, first, *others = predicate
    if kind in ("open", "close", "turnon", "turnoff"):
        return _joint_condition(env, kind, first)
    second = others[0] if others else ""
    site = env.object_sites_dict.get(second)
    if kind == "on" and site is not None:
        parent = env.get_object(site.parent_name)
        return Condition(
            kind="on_site",
            item=env.get_object(first).root_body,
            site=second,
            size_m=_size(site),
            lower="" if parent is None else parent.root_body,
            touching=None if parent is None else _touching(env, parent, first),
        )
    if kind == "in" and site is not None:
        return Condition(
            kind="in_site", item=env.get_object(first).root_body, site=second, size_m=_size(site)
        )
    if kind == "on":
        support = env.get_object(second)
        return Condition(
            kind="on_object",
            item=env.get_object(first).root_body,
            lower=support.root_body,
            touching=_touching(env, support, first),
        )
    raise RehearsalError(
        f"goal {' '.join(predicate)} is not supported; valid predicates: on, in, open, close, turnon, turnoff"
    )


def _size(site: Any) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in site.size)
    return x, y, z


def _touching(env: Any, support: Any, item: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(support.contact_geoms), tuple(env.get_object(item).contact_geoms)


def _joint_condition(env: Any, kind: str, name: str) -> Condition:
    """Reads the threshold off the object's own test: it lies where the answer to `is_open` and its like changes."""
    site = env.object_sites_dict.get(name)
    item = env.get_object(site.parent_name if site is not None else name)
    joints = tuple((site if site is not None else item).joints)
    test = {"open": "is_open", "close": "is_close", "turnon": "turn_on", "turnoff": "turn_off"}[kind]
    threshold, above = _threshold(getattr(item, test), item, kind)
    some = kind in ("open", "turnon")
    return Condition(kind="joints", joints=joints, threshold=threshold, above=above, any=some)


def _threshold(test: Any, item: Any, kind: str) -> tuple[float, bool]:
    """Returns (threshold, whether the test holds above it)."""
    ranges = item.object_properties["articulation"]
    for value in ranges[f"default_{kind}_ranges"]:
        below, above = bool(test(value - 1e-9)), bool(test(value + 1e-9))
        if below != above:
            return float(value), above
    raise RehearsalError(f"LIBERO's {item.name} has no threshold for {kind} among {ranges}")


def _indicators(env: Any) -> Iterator[Indicator]:
    """Yields the sites that show whether a thing is on."""
    for state in env.tracking_object_states_change:
        item = env.get_object(state.object_name)
        threshold, _ = _threshold(item.turn_on, item, "turnon")
        for site, _ in item.object_properties["vis_site_names"].values():
            yield Indicator(site=site, joint=item.joints[-1], threshold=threshold)


def draw_initial_state(env: Any, seed: int) -> np.ndarray:
    """Returns qpos (nq,) of one initial state, drawn as the benchmark's own were; the same for the same seed."""
    np.random.seed(seed)
    env.env.robots[0].initialization_noise = {"magnitude": HOME_NOISE_RAD, "type": "gaussian"}
    env.reset()  # tries again when a placement fails
    qpos: np.ndarray = env.sim.data.qpos.copy()
    return qpos
