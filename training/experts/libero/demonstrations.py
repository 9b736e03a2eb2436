"""LIBERO's expert as a source of attempts: closed loop, every world seen by the cameras at every control step."""

from collections.abc import Iterator, Sequence

import numpy as np

from rehearsal.simulation import Scenario
from training.experts.attempt import Attempt
from training.experts.libero.expert import LiberoExpert
from training.experts.libero.replay import ReplayedExpert
from training.simulators.libero.package import LiberoTask
from training.simulators.libero.simulator import LiberoSimulator
from training.simulators.workplace import Physics


class LiberoAttempts:
    """See training.experts.attempt.AttemptSource; an attempt goes on for a few steps after its success."""

    def __init__(
        self,
        task: LiberoTask,
        *,
        cameras: Sequence[str],
        side_px: int,
        max_worlds: int,
        threads: int | None,
        physics: Physics,
        horizon_steps: int,
        after_success_steps: int,
        replay: np.ndarray | None = None,
    ) -> None:
        """replay: actions (T, 7) to play in place of the expert's.

        Raises RehearsalError for an unknown camera, and when the scene cannot be built.
        """
        self._replay = replay
        self.max_worlds = max_worlds
        self._after_success_steps = after_success_steps
        self._simulator = LiberoSimulator(
            task.suite,
            [task.number],
            cameras=cameras,
            side_px=side_px,
            max_worlds=max_worlds,
            threads=threads,
            physics=physics,
            horizon_steps=horizon_steps,
            stop_at_success=False,
        )

    def attempts(self, chosen: Sequence[Scenario]) -> Iterator[Attempt]:
        """Raises RehearsalError when the expert has no skill for the task's goal."""
        for first in range(0, len(chosen), self.max_worlds):
            yield from self._play(chosen[first : first + self.max_worlds])

    def close(self) -> None:
        self._simulator.close()

    def _play(self, batch: Sequence[Scenario]) -> Iterator[Attempt]:
        simulator = self._simulator
        simulator.reset(batch)
        experts = [self._expert(world) for world in range(len(batch))]
        rows: list[list[_Row]] = [[] for _ in batch]
        length = np.full(len(batch), simulator.horizon_steps)
        instructions: list[str] = []
        for step in range(simulator.horizon_steps):
            playing = [world for world in range(len(batch)) if step < length[world]]
            if not playing:
                break
            seen = simulator.observe(playing)
            instructions = instructions or seen.instructions
            actions = np.stack([experts[world].act(simulator.world(world)[1]) for world in playing])
            for i, world in enumerate(playing):
                images = {name: pictures[i] for name, pictures in seen.images.items()}
                rows[world].append((seen.state[i], actions[i], images))
            simulator.step(playing, actions[:, None])
            outcomes = simulator.outcomes()
            ended = np.minimum(outcomes.steps + self._after_success_steps, simulator.horizon_steps)
            length = np.where(outcomes.success, ended, simulator.horizon_steps)
        outcomes = simulator.outcomes()
        for world, scenario in enumerate(batch):
            state, action = [row[0] for row in rows[world]], [row[1] for row in rows[world]]
            yield Attempt(
                scenario=scenario,
                instruction=instructions[world],
                success=bool(outcomes.success[world]),
                steps=int(outcomes.steps[world]),
                state=np.stack(state),
                action=np.stack(action),
                images={name: np.stack([row[2][name] for row in rows[world]]) for name in simulator.cameras},
            )

    def _expert(self, world: int) -> LiberoExpert | ReplayedExpert:
        if self._replay is not None:
            return ReplayedExpert(self._replay)
        scene, data = self._simulator.world(world)
        expert = LiberoExpert(scene.model, scene.record.goal)
        expert.reset(data)
        return expert


_Row = tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]
"""State (S,), action (A,) and camera -> picture of one control step."""
