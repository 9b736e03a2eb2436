"""How often the expert succeeds: what a policy that imitates it may hope for."""

from collections.abc import Sequence

import numpy as np

from rehearsal.simulation import Scenario
from training.evaluation.success_rate import SuccessRate, success_rate
from training.experts.demonstrations import plans
from training.experts.expert import Expert
from training.simulators.twin.simulator import TwinSimulator

_CHUNK_STEPS = 10


def evaluate_expert(simulator: TwinSimulator, expert: Expert, chosen: Sequence[Scenario]) -> SuccessRate:
    """Plays the expert on every scenario, unseen by any camera."""
    success, steps = [], []
    for first in range(0, len(chosen), simulator.max_worlds):
        batch = chosen[first : first + simulator.max_worlds]
        actions = plans(simulator, expert, batch)
        for start in range(0, actions.shape[1], _CHUNK_STEPS):
            simulator.step(range(len(batch)), actions[:, start : start + _CHUNK_STEPS])
        outcomes = simulator.outcomes()
        success.append(outcomes.success)
        steps.append(outcomes.steps)
    return success_rate(np.concatenate(success), np.concatenate(steps))
