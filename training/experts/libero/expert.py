"""A scripted expert for LIBERO's tasks: it reads the goal of the BDDL file and the state of the simulator, no image."""

from collections.abc import Sequence

import mujoco
import numpy as np

from training.experts.libero.motion import OPEN
from training.experts.libero.pick_place import Steps
from training.experts.libero.plan import Predicate, plan
from training.experts.libero.scene import Scene

_STILL = np.array([0, 0, 0, 0, 0, 0, OPEN], dtype=np.float32)


class LiberoExpert:
    """Acts in one world of one task, closed loop, once a control step (20 Hz).

    model: read only; one may serve many experts.
    goal: the goal of the BDDL file, as `("on", "akita_black_bowl_1", "plate_1")`; all must hold in the end.
    """

    def __init__(self, model: mujoco.MjModel, goal: Sequence[Sequence[str]]) -> None:
        self._scene = Scene(model)
        self._goal: list[Predicate] = [tuple(predicate) for predicate in goal]
        self._steps: Steps | None = None

    def reset(self, data: mujoco.MjData) -> None:
        """Begins an episode at the state in `data`, whose positions must be up to date (mj_forward)."""
        self._scene.data = data
        self._steps = plan(self._scene, self._goal)

    def act(self, data: mujoco.MjData) -> np.ndarray:
        """Returns the action float32 (7,) for the state in `data`: step [0.05 m], turn [0.5 rad], gripper."""
        self._scene.data = data
        action = next(self._steps, _STILL) if self._steps else _STILL
        return np.clip(action, -1.0, 1.0).astype(np.float32)
