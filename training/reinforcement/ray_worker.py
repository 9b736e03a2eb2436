"""What runs in a rollout worker of Ray: a simulator, a copy of the policy, and the weights it was last told."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch
from torch import nn

from rehearsal.simulation import Scenario
from training.policies.policy import Decoding, choose_device
from training.policies.trained_policy import TrainedPolicy
from training.reinforcement.rollout import PartTimes, Success
from training.reinforcement.rollouts import LocalRollouts
from training.reinforcement.trajectory import Trajectories

# Makes the simulator and the policy to begin with, in the worker.
MakeWorker = Callable[[], tuple[LocalRollouts, TrainedPolicy]]
Packed = dict[str, tuple[torch.dtype, np.ndarray]]


@dataclass(frozen=True)
class Weights:
    """The weights after `version` updates, in Ray's object store: fetched once a machine, read in place there.

    packed: the reference in a list, so that Ray leaves the fetching to the worker that lacks them.
    """

    version: int
    packed: list[Any]


class RolloutWorker:
    """The actor; `start` first."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self.version: int | None = None

    def start(self, make: MakeWorker) -> int:
        """Builds simulator and policy; returns the process's id."""
        self.rollouts, self.policy = make()
        self.policy.to(choose_device("auto"))
        return os.getpid()

    def sample(
        self, weights: Weights, scenarios: Sequence[Scenario], first: int, options: dict[str, Any]
    ) -> tuple[Trajectories, dict[str, float]]:
        """Returns the trajectories of a piece that begins at place `first` of a draw, and the seconds of its parts."""
        times = PartTimes()
        with times.part("weights"):
            self._take(weights)
        drawn = self.rollouts.sample(
            self.policy, scenarios, policy_step=weights.version, first=first, times=times, **options
        )
        return drawn, dict(times.seconds)

    def greedy(self, weights: Weights, scenarios: Sequence[Scenario], decoding: Decoding) -> Success:
        self._take(weights)
        return self.rollouts.greedy(self.policy, scenarios, decoding=decoding, policy_step=weights.version)

    def _take(self, weights: Weights) -> None:
        if weights.version != self.version:
            unpack(ray.get(weights.packed[0]), self.policy.model)
            self.version = weights.version


def pack(model: nn.Module) -> Packed:
    """Returns the model's weights as bytes in arrays, which Ray shares without a copy, whatever their type."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return {name: (t.dtype, t.reshape(-1).view(torch.uint8).numpy()) for name, t in whole.items()}


def unpack(packed: Packed, model: nn.Module) -> None:
    """Writes packed weights into a model of the same shape, in the model's own types."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            dtype, data = packed[name]
            # A copy, one tensor at a time: what lies in the object store may only be read.
            tensor.copy_(torch.from_numpy(data.copy()).view(dtype).view(tensor.shape))
