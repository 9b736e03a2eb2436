"""The attempts of the twin's expert, played in batches of worlds and seen by the cameras at every control step.

Everything is played on: a world goes on after its success, so that a demonstration shows how to end. Attempts come
in the order of their scenarios, each the same whatever else runs in the batch, so a dataset that was interrupted
and resumed is the one that was not.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from rehearsal.cell import Cell
from rehearsal.simulation import Scenario
from training.experts.attempt import Attempt
from training.experts.expert import Expert
from training.simulators.twin.simulator import TwinSimulator


class TwinAttempts:
    """See training.experts.attempt.AttemptSource."""

    def __init__(
        self,
        cell: Cell,
        task: str,
        *,
        cameras: Sequence[str],
        side_px: int,
        max_worlds: int,
        threads: int | None,
        after_success_steps: int,
    ) -> None:
        """Raises RehearsalError for an unknown task or camera."""
        self.max_worlds = max_worlds
        self._after_success_steps = after_success_steps
        self._expert = Expert(cell, task)
        self._simulator = TwinSimulator(
            cell,
            task,
            cameras=cameras,
            side_px=side_px,
            max_worlds=max_worlds,
            threads=threads,
            stop_at_success=False,
        )

    def attempts(self, chosen: Sequence[Scenario]) -> Iterator[Attempt]:
        return attempts(self._simulator, self._expert, chosen, after_success_steps=self._after_success_steps)

    def close(self) -> None:
        self._simulator.close()


def plans(simulator: TwinSimulator, expert: Expert, chosen: Sequence[Scenario]) -> np.ndarray:
    """Puts the simulator into the scenarios and returns actions float32 (N, T, A); shorter plans hold their last."""
    simulator.reset(chosen)
    start = simulator.measure(range(len(chosen)))
    planned = [
        expert.plan(scenario, simulator.situation(world), start[world]) for world, scenario in enumerate(chosen)
    ]
    longest = max(len(plan) for plan in planned)
    return np.stack([np.concatenate([plan, np.repeat(plan[-1:], longest - len(plan), axis=0)]) for plan in planned])


def attempts(
    simulator: TwinSimulator, expert: Expert, chosen: Sequence[Scenario], *, after_success_steps: int = 10
) -> Iterator[Attempt]:
    """Yields the expert's attempt at each scenario, cut `after_success_steps` after its success.

    simulator: made with `stop_at_success=False`; as many scenarios as it has worlds are played at once.
    """
    for first in range(0, len(chosen), simulator.max_worlds):
        batch = chosen[first : first + simulator.max_worlds]
        actions = plans(simulator, expert, batch)
        yield from _play(simulator, batch, actions, after_success_steps)


def _play(
    simulator: TwinSimulator, batch: Sequence[Scenario], actions: np.ndarray, after_success_steps: int
) -> Iterator[Attempt]:
    length = np.full(len(batch), actions.shape[1])
    states: list[np.ndarray] = []
    instructions: list[str] = []
    images: dict[str, list[np.ndarray]] = {name: [] for name in simulator.cameras}
    seen: list[list[int]] = []
    for step in range(actions.shape[1]):
        playing = [world for world in range(len(batch)) if step < length[world]]
        if not playing:
            break
        observation = simulator.observe(playing)
        instructions = instructions or observation.instructions
        states.append(observation.state)
        for name in images:
            images[name].append(observation.images[name])
        seen.append(playing)
        simulator.step(playing, actions[playing, step : step + 1])
        outcomes = simulator.outcomes()
        ended = outcomes.steps + after_success_steps
        length = np.where(outcomes.success, np.minimum(ended, actions.shape[1]), actions.shape[1])
    outcomes = simulator.outcomes()
    for world, scenario in enumerate(batch):
        rows = [playing.index(world) for playing in seen[: length[world]]]
        yield Attempt(
            scenario=scenario,
            instruction=instructions[world],
            success=bool(outcomes.success[world]),
            steps=int(outcomes.steps[world]),
            state=np.stack([state[row] for state, row in zip(states, rows)]),
            action=actions[world, : length[world]],
            images={name: np.stack([frame[row] for frame, row in zip(images[name], rows)]) for name in images},
        )
