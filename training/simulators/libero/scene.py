"""A compiled scene, from the cache or made now: the model, what is known of it, and its initial states.

Two settings. `exact`: the model as LIBERO compiles it. `fast`: sleeping islands on, visual meshes decimated, no
reflections; the collision geometry, the inertias and every other option are those of `exact`.
"""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import msgspec
import mujoco
import numpy as np
from rich.console import Console
from rich.progress import track

from rehearsal.errors import RehearsalError
from rehearsal.simulation import SPLIT_START, Scenario, Split
from training.simulators.libero.cache import cache_root
from training.simulators.libero.controller import ArmModel
from training.simulators.libero.goal import Goal, compile_goal, element
from training.simulators.libero.package import LiberoTask
from training.simulators.libero.scene_record import FORMAT, SceneRecord

Physics = Literal["fast", "exact"]

DRAWN_STATES: dict[Split, int] = {"train": 500, "validation": 64, "held_out": 128}
"""Initial states drawn a task and split, once, when the scene is compiled: each takes the stock sampler 40 ms."""

_ARENA_BYTES = 64 << 20
"""Contacts and constraints of the busiest scene need less than 8 MB; LIBERO's own setting asks for 1.3 GB a world."""

_RECORD, _XML, _FAST, _DRAWN = "scene.json", "scene.xml", "fast.mjb", "drawn.npz"


@dataclass(frozen=True, kw_only=True)
class LiberoScene:
    """model: shared by all worlds, never changed. arm, goal: constants of native code. drawn: split -> (N, nq)."""

    task: LiberoTask
    physics: Physics
    record: SceneRecord
    model: mujoco.MjModel
    arm: ArmModel
    goal: Goal
    drawn: dict[Split, np.ndarray]

    def initial_state(self, scenario: Scenario) -> tuple[np.ndarray, np.ndarray]:
        """Returns (qpos, qvel) of a scenario; raises RehearsalError when the split does not hold so many."""
        split = scenario.split
        number = scenario.seed - SPLIT_START[split]
        states = self.task.stored_states() if split == "stored" else self.drawn[split]
        if number >= len(states):
            raise RehearsalError(
                f"{self.task.task} has {len(states)} initial states of split {split}, not {number + 1}"
            )
        if split != "stored":
            return states[number], np.zeros(self.model.nv)
        nq = self.model.nq
        return states[number, 1 : 1 + nq], states[number, 1 + nq : 1 + nq + self.model.nv]


def load_scene(task: LiberoTask, physics: Physics) -> LiberoScene:
    """Returns the scene, built first when the cache lacks it: about a minute, once a task."""
    from training.simulators.libero.package import package_version

    folder = cache_root() / "scenes" / f"{task.task}-{package_version()}-{mujoco.__version__}-{FORMAT}"
    if not folder.is_dir():
        _build(task, folder)
    record = _read_record(folder)
    exact = physics == "exact"
    model = _compile_exact(folder) if exact else mujoco.MjModel.from_binary_path(str(folder / _FAST))
    with np.load(folder / _DRAWN) as archive:
        drawn: dict[Split, np.ndarray] = {split: archive[split] for split in DRAWN_STATES}
    return LiberoScene(
        task=task,
        physics=physics,
        record=record,
        model=model,
        arm=arm_model(model, record),
        goal=compile_goal(model, record.conditions),
        drawn=drawn,
    )


def _build(task: LiberoTask, folder: Path) -> None:
    """Fills the cache's folder; other processes see it whole or not at all."""
    from training.simulators.libero.scene_builder import describe, draw_initial_state, stock_environment

    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{task.task}.", dir=folder.parent))
    try:
        with stock_environment(task) as env:
            (partial / _RECORD).write_bytes(msgspec.json.encode(describe(env, task)))
            (partial / _XML).write_text(_with_small_arena(env.env.model.get_xml()), encoding="utf-8")
            drawn = {}
            for split, count in DRAWN_STATES.items():
                seeds = range(SPLIT_START[split], SPLIT_START[split] + count)
                bar = track(
                    seeds, f"{task.task}: {split} states", console=Console(stderr=True), transient=True
                )
                drawn[split] = np.stack([draw_initial_state(env, seed) for seed in bar])
        np.savez_compressed(partial / _DRAWN, allow_pickle=False, **drawn)
        _save_fast(partial)
        try:
            os.replace(partial, folder)
        except OSError:
            if not folder.is_dir():  # else another process was first, with the same content
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _with_small_arena(xml: str) -> str:
    scene = ElementTree.fromstring(xml)
    for size in scene.findall("size"):
        scene.remove(size)
    ElementTree.SubElement(scene, "size", memory=f"{_ARENA_BYTES}")
    return ElementTree.tostring(scene, encoding="unicode")


def _read_record(folder: Path) -> SceneRecord:
    return msgspec.json.decode((folder / _RECORD).read_bytes(), type=SceneRecord)


def _compile_exact(folder: Path) -> mujoco.MjModel:
    """Returns the model as LIBERO compiles it, with its fixtures in place."""
    try:
        model = mujoco.MjModel.from_xml_path(str(folder / _XML))
    except ValueError as error:
        raise RehearsalError(
            f"cannot compile {folder / _XML} ({error}); delete that folder to build it anew"
        ) from error
    for name, pose in _read_record(folder).fixture_pose.items():
        body = element(model, "body", name)
        model.body_pos[body], model.body_quat[body] = pose.position_m, pose.quaternion
    return model


def _save_fast(folder: Path) -> None:
    from training.simulators.libero.fast_model import fast_model

    model = fast_model((folder / _XML).read_text(encoding="utf-8"), _compile_exact(folder))
    model.opt.enableflags |= int(mujoco.mjtEnableBit.mjENBL_SLEEP)
    mujoco.mj_saveModel(model, str(folder / _FAST), None)


def arm_model(model: mujoco.MjModel, record: SceneRecord) -> ArmModel:
    """Returns what the controller needs of the model."""
    joints = np.array([element(model, "joint", name) for name in record.arm_joints])
    dofs = model.jnt_dofadr[joints].astype(np.int64)
    fingers = np.array([element(model, "actuator", name) for name in record.finger_actuators])
    start, size = model.M_rowadr[dofs].astype(np.int64), model.M_rownnz[dofs].astype(np.int64)
    column = np.zeros((len(dofs), int(size.max())), dtype=np.int64)
    for row, (first, count) in enumerate(zip(start, size)):
        column[row, :count] = np.searchsorted(dofs, model.M_colind[first : first + count])
    low, high = model.actuator_ctrlrange[fingers].T
    return ArmModel(
        joints=joints,
        qpos=model.jnt_qposadr[joints].astype(np.int64),
        dofs=dofs,
        actuators=np.array([element(model, "actuator", name) for name in record.arm_actuators]),
        torque=np.array(record.torque_limit_nm).T.copy(),
        home_rad=np.array(record.home_rad),
        grip_site=element(model, "site", record.grip_site),
        finger_actuators=fingers,
        finger_centre=(high + low) / 2,
        finger_half=(high - low) / 2,
        row_start=start,
        row_size=size,
        row_column=column,
    )
