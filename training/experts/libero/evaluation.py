"""How often LIBERO's expert succeeds from the stored initial states, task by task."""

from collections.abc import Sequence

import numpy as np

from rehearsal.simulation import Scenario
from training.evaluation.success_rate import SuccessRate, success_rate
from training.experts.libero.expert import LiberoExpert
from training.simulators.libero.simulator import LiberoSimulator


def evaluate_libero_expert(simulator: LiberoSimulator, chosen: Sequence[Scenario]) -> SuccessRate:
    """Plays the expert on every scenario, unseen by any camera.

    Raises RehearsalError when it has no skill for the goal.
    """
    success, steps = [], []
    for first in range(0, len(chosen), simulator.max_worlds):
        batch = chosen[first : first + simulator.max_worlds]
        simulator.reset(batch)
        experts = []
        for world in range(len(batch)):
            scene, data = simulator.world(world)
            experts.append(LiberoExpert(scene.model, scene.record.goal))
            experts[-1].reset(data)
        while (playing := np.flatnonzero(~simulator.outcomes().finished)).size:
            actions = np.stack([experts[world].act(simulator.world(int(world))[1]) for world in playing])
            simulator.step(playing.tolist(), actions[:, None])
        outcomes = simulator.outcomes()
        success.append(outcomes.success)
        steps.append(outcomes.steps)
    return success_rate(np.concatenate(success), np.concatenate(steps))
