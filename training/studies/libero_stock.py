"""LIBERO's own environment, driven as evaluations on it do: what the engine is measured against."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mujoco
import numpy as np

from training.simulators.libero.package import LiberoTask
from training.simulators.libero.scene_builder import CAMERAS, stock_environment
from training.simulators.libero.simulator import WAITING_STEPS

_WAITING = (0.0,) * 6 + (-1.0,)


class StockWorld:
    """One task in the package's environment, its fixtures pinned as in our scenes."""

    def __init__(self, env: Any, task: LiberoTask) -> None:
        """env: as `stock_environment` yields it."""
        self._env = env
        self._states = task.stored_states()

    @property
    def model(self) -> mujoco.MjModel:
        model: mujoco.MjModel = self._env.sim.model._model
        return model

    @property
    def data(self) -> mujoco.MjData:
        """Of the last reset: `begin` may replace it."""
        data: mujoco.MjData = self._env.sim.data._data
        return data

    @property
    def success(self) -> bool:
        return bool(self._env.check_success())

    def begin(self, number: int) -> None:
        """Starts an episode at the stored state of that number, after the waiting steps."""
        self._env.reset()
        # A reset forgets everything but where the fingers were told to be.
        self._env.env.robots[0].gripper.current_action = np.zeros(2)
        self._env.set_init_state(self._states[number])
        for _ in range(WAITING_STEPS):
            self._env.step(_WAITING)

    def step(self, action: np.ndarray) -> None:
        """Plays one control step, action (7,), pictures included where the environment takes them."""
        self._env.step(action)

    def set_state(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Puts the world into a state and lets the environment update what depends on it."""
        self._env.regenerate_obs_from_state(np.concatenate([[0.0], qpos, qvel]))

    def picture(self, camera: str, side_px: int) -> np.ndarray:
        """Returns uint8 (side, side, 3), upright, of a camera named as in SceneRecord.cameras."""
        seen: np.ndarray = self._env.sim.render(camera_name=CAMERAS[camera], width=side_px, height=side_px)
        return seen[::-1]


@contextmanager
def stock_world(task: LiberoTask, *, observed_px: int | None = None) -> Iterator[StockWorld]:
    """Yields the environment of a task. observed_px: both cameras are rendered so large at every step, or not at all.

    With cameras it is the package's OffScreenRenderEnv, which is this class with the same options. One at a time:
    robosuite leaves the context of the last one current.
    """
    options: dict[str, Any] = {"has_offscreen_renderer": True, "use_camera_obs": False}
    if observed_px is not None:
        options |= {"use_camera_obs": True, "camera_heights": observed_px, "camera_widths": observed_px}
    with stock_environment(task, **options) as env:
        yield StockWorld(env, task)
