"""A point that moves in a picture: the smallest VectorSimulator with pictures, state, instructions and a horizon.

It is analytic and has nothing of a robot: it tests the learning loop, not the twin.
"""

from collections.abc import Sequence

import numpy as np

from rehearsal.simulation import ObservationBatch, Outcomes, Scenario
from rehearsal.spec import ActionSpec

TASK = "toy_reach"
CAMERA = "head"
SPEED = 0.1
"""Largest move of one control step, in the unit square that is the world."""


class ToyReach:
    """The point has to come within `tolerance` of the blob in the picture; actions are absolute places (x, y)."""

    def __init__(self, *, side_px: int = 16, max_worlds: int = 64, tolerance: float = 0.1, horizon_steps: int = 12):
        self.action_spec = ActionSpec(
            names=("x", "y"), units=("rad", "rad"), frame="joint", mode="absolute", gripper_sign=1,
            lower=(-1.0, -1.0), upper=(1.0, 1.0), rate_hz=10.0,
        )  # fmt: skip
        self.horizon_steps = horizon_steps
        self.max_worlds = max_worlds
        self.side_px = side_px
        self.tolerance = tolerance
        self.observed: list[list[int]] = []

    def reset(self, scenarios: Sequence[Scenario]) -> None:
        assert len(scenarios) <= self.max_worlds
        rngs = [np.random.default_rng(scenario.seed) for scenario in scenarios]
        self.target = np.array([rng.uniform(-0.7, 0.7, 2) for rng in rngs])
        self.position = np.zeros_like(self.target)
        self.steps = np.zeros(len(rngs), dtype=np.int64)
        self.success = np.zeros(len(rngs), dtype=bool)
        self.observed = []

    def observe(self, worlds: Sequence[int]) -> ObservationBatch:
        self.observed.append(list(worlds))
        line = np.linspace(-1, 1, self.side_px)
        target = self.target[list(worlds)]
        dx, dy = line - target[:, :1], line - target[:, 1:]
        distance = dx[:, None, :] ** 2 + dy[:, :, None] ** 2
        blob = (255 * np.exp(-distance / 0.05)).astype(np.uint8)
        return ObservationBatch(
            images={CAMERA: np.repeat(blob[..., None], 3, axis=-1)},
            state=self.position[list(worlds)].astype(np.float32),
            instructions=["reach the blob"] * len(worlds),
        )

    def step(self, worlds: Sequence[int], actions: np.ndarray) -> None:
        for row, world in enumerate(worlds):
            for action in actions[row]:
                if self.success[world] or self.steps[world] >= self.horizon_steps:
                    break
                move = np.clip(action - self.position[world], -SPEED, SPEED)
                self.position[world] = self.position[world] + move
                self.steps[world] += 1
                self.success[world] = np.abs(self.position[world] - self.target[world]).max() < self.tolerance

    def outcomes(self) -> Outcomes:
        finished = self.success | (self.steps >= self.horizon_steps)
        return Outcomes(success=self.success.copy(), finished=finished, steps=self.steps.copy())

    def close(self) -> None:
        pass
