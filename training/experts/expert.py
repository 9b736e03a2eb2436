"""The expert: plans a whole episode from what the scenario drew, as actions for every control step."""

import numpy as np

from rehearsal.cell import JOINTS_PER_ARM, VALUES_PER_ARM, Cell
from rehearsal.simulation import Scenario
from training.experts.inverse_kinematics import ArmInverseKinematics
from training.experts.motion import plan
from training.experts.scripts import SCRIPTS, Hand
from training.simulators.twin.randomisation import Situation
from training.simulators.twin.tasks import task_named

_EXPERT_SEED = 0xE09E27


class Expert:
    """Plans one task in one cell from privileged state; the arm that does not act keeps still."""

    def __init__(self, cell: Cell, task: str) -> None:
        self._cell = cell
        self._task = task_named(cell.check_task(task))
        self._kinematics = [ArmInverseKinematics(arm) for arm in cell.arms]

    def plan(self, scenario: Scenario, situation: Situation, measured: np.ndarray) -> np.ndarray:
        """Returns actions float32 (T, A), T at most the horizon; the last is to be held.

        measured: (A,) the state at the start. Raises RehearsalError when a waypoint is out of reach.
        """
        rng = np.random.default_rng([_EXPERT_SEED, scenario.seed])
        arm, kinematics = self._cell.arms[situation.arm], self._kinematics[situation.arm]
        columns = slice(situation.arm * VALUES_PER_ARM, (situation.arm + 1) * VALUES_PER_ARM)
        home, opening = measured[columns][:JOINTS_PER_ARM], float(measured[columns][-1])
        places = {name: np.array(place) for name, place in situation.places.items()}
        hand = Hand(rng, kinematics.tool_position(home), np.array(arm.base_position_m), opening)
        SCRIPTS[self._task.name](hand, places)
        acting = plan(kinematics, home, opening, hand.waypoints, self._cell.control_rate_hz, arm.limits)
        actions = np.repeat(measured[None], len(acting), axis=0)
        actions[:, columns] = acting
        return actions[: self._task.horizon_steps].astype(np.float32)
