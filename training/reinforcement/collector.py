"""Fills batches: scenarios from the sampler, trajectories from the rollouts, before each update or during the last one.

Synchronous, a batch is drawn by the policy that will learn from it. Asynchronous, it is drawn while the update before
it runs, by a copy of the policy from before that update: exactly one update stale, never more, whatever the timing,
so that a run can be repeated. Each trajectory carries the update that sampled it (`policy_step`), and the ratios of
the surrogate are to that policy.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from rehearsal.simulation import Scenario
from training.policies.trained_policy import TrainedPolicy
from training.reinforcement.dynamic_sampling import Batch, GroupSampler
from training.reinforcement.rollout import PartTimes
from training.reinforcement.rollouts import Rollouts
from training.reinforcement.trajectory import Trajectories

ROLLOUT = 3
"""Purpose of random numbers, so that no two ever share a seed."""


class Collector:
    """Draws a batch with the policy as it is; keeps count of the control steps simulated for training."""

    def __init__(
        self, policy: TrainedPolicy, rollouts: Rollouts, sampler: GroupSampler, *, temperature: float, seed: int
    ) -> None:
        self.policy = policy
        self.rollouts = rollouts
        self.sampler = sampler
        self.temperature = temperature
        self.seed = seed
        self.control_steps = 0

    def collect(self, step: int, times: PartTimes) -> Batch:
        """Returns the batch of update `step`."""
        batch = self._fill(self.policy, step, step, times)
        self.control_steps += batch.drawn_steps
        return batch

    def close(self) -> None:
        """Ends what still runs."""

    def state(self) -> dict[str, Any]:
        return {"sampler": self.sampler.state(), "control_steps": self.control_steps}

    def load_state(self, state: dict[str, Any], step: int) -> None:
        """Takes what `state` gave after `step` updates; the policy has its weights of that moment."""
        self.sampler.load_state(state["sampler"])
        self.control_steps = state["control_steps"]

    def _fill(self, policy: TrainedPolicy, step: int, policy_step: int, times: PartTimes) -> Batch:
        def draw(scenarios: list[Scenario], number: int) -> Trajectories:
            return self.rollouts.sample(
                policy,
                scenarios,
                temperature=self.temperature,
                random_key=(self.seed, ROLLOUT, step, number),
                policy_step=policy_step,
                times=times,
            )

        return self.sampler.fill(draw)


class AsynchronousCollector(Collector):
    """Draws the next batch in a thread of its own, with a copy of the policy, while the learner updates."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._copy = self.policy.duplicate()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rollouts")
        self._next: Future[Batch] | None = None

    def collect(self, step: int, times: PartTimes) -> Batch:
        """Returns the batch of update `step` and begins that of the next one with the policy as it is now."""
        batch = self._wait(times) if self._next is not None else self._fill(self.policy, step, step, times)
        self.control_steps += batch.drawn_steps
        self._copy.model.load_state_dict(self.policy.model.state_dict())
        self._next = self._thread.submit(self._fill, self._copy, step + 1, step, PartTimes())
        return batch

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def state(self) -> dict[str, Any]:
        """Waits for the batch under way: what drew it will be gone when a run goes on."""
        pending = self._next.result() if self._next is not None else None
        return super().state() | {"pending": _batch_state(pending)}

    def load_state(self, state: dict[str, Any], step: int) -> None:
        super().load_state(state, step)
        self._next = None
        if state["pending"] is not None:
            self._next = Future()
            self._next.set_result(_batch_of(state["pending"]))

    def _wait(self, times: PartTimes) -> Batch:
        assert self._next is not None
        start = time.monotonic()
        batch = self._next.result()
        times.seconds["waiting"] += time.monotonic() - start
        return batch


def _batch_state(batch: Batch | None) -> dict[str, Any] | None:
    """Returns a batch as tensors and numbers, as a checkpoint keeps them."""
    if batch is None:
        return None
    values = {name: getattr(batch, name) for name in batch.__dataclass_fields__ if name != "trajectories"}
    if batch.trajectories is not None:
        values["trajectories"] = {
            name: torch.from_numpy(array) for name, array in batch.trajectories.arrays().items()
        }
    return values


def _batch_of(state: dict[str, Any]) -> Batch:
    values = dict(state)
    arrays = values.pop("trajectories", None)
    trajectories = None
    if arrays is not None:
        trajectories = Trajectories.from_arrays({name: tensor.numpy() for name, tensor in arrays.items()})
    return Batch(trajectories=trajectories, **values)
