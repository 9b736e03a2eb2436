"""Where trajectories come from: one simulator in this process, or each of several learner processes with its own.

The learner asks a `Rollouts` and does not know which; `ray_rollouts` has the one that spans machines. All give the
same trajectories for the same key: a draw is cut between groups, and a trajectory's random numbers follow from the
key and from its place in the whole draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rehearsal.simulation import Scenario, VectorSimulator
from training.engine.channel import Channel
from training.engine.engine import Engine
from training.policies.policy import Decoding
from training.policies.trained_policy import TrainedPolicy
from training.reinforcement.rollout import PartTimes, Success, run_greedy, sample_trajectories
from training.reinforcement.trajectory import Trajectories, concatenate


class Rollouts(Protocol):
    """Where trajectories come from; max_worlds: how many it simulates at once.

    policy_step: the updates that `policy` has learned from, by which its weights are known.
    """

    @property
    def max_worlds(self) -> int: ...

    def sample(
        self,
        policy: TrainedPolicy,
        scenarios: Sequence[Scenario],
        *,
        temperature: float,
        random_key: Sequence[int],
        policy_step: int,
        keep_inputs: bool = True,
        times: PartTimes | None = None,
    ) -> Trajectories:
        """Returns one trajectory a scenario, in order, sampled by `policy` as it stands; see `sample_trajectories`."""
        ...

    def greedy(
        self, policy: TrainedPolicy, scenarios: Sequence[Scenario], *, decoding: Decoding, policy_step: int
    ) -> Success:
        """Returns how the policy that would be served does on each scenario, in order."""
        ...

    def close(self) -> None:
        """Frees simulators and processes."""
        ...


@dataclass(frozen=True)
class LocalRollouts:
    """One simulator in this process."""

    simulator: VectorSimulator

    @property
    def max_worlds(self) -> int:
        return self.simulator.max_worlds

    def sample(
        self,
        policy: TrainedPolicy,
        scenarios: Sequence[Scenario],
        *,
        temperature: float,
        random_key: Sequence[int],
        policy_step: int,
        keep_inputs: bool = True,
        times: PartTimes | None = None,
        first: int = 0,
    ) -> Trajectories:
        """first: the place of the first scenario in the whole draw."""
        return sample_trajectories(
            self.simulator,
            policy,
            scenarios,
            temperature=temperature,
            random_key=random_key,
            policy_step=policy_step,
            keep_inputs=keep_inputs,
            times=times,
            first=first,
        )

    def greedy(
        self, policy: TrainedPolicy, scenarios: Sequence[Scenario], *, decoding: Decoding, policy_step: int
    ) -> Success:
        return run_greedy(self.simulator, policy, scenarios, decoding=decoding)

    def close(self) -> None:
        self.simulator.close()


class RankRollouts:
    """Each of the learner's processes simulates its share of the groups; all end with all trajectories."""

    def __init__(self, own: LocalRollouts, channel: Channel) -> None:
        self.own = own
        self.channel = channel

    @property
    def max_worlds(self) -> int:
        return self.own.max_worlds * self.channel.ranks

    def sample(
        self,
        policy: TrainedPolicy,
        scenarios: Sequence[Scenario],
        *,
        temperature: float,
        random_key: Sequence[int],
        policy_step: int,
        keep_inputs: bool = True,
        times: PartTimes | None = None,
    ) -> Trajectories:
        share, drawn = self._share(scenarios), None
        if share is not None:
            drawn = self.own.sample(
                policy,
                scenarios[share],
                temperature=temperature,
                random_key=random_key,
                policy_step=policy_step,
                keep_inputs=keep_inputs,
                times=times,
                first=share.start,
            )
        with (times or PartTimes()).part("exchange"):
            everyones = self.channel.gather(drawn)
        return concatenate([part for part in everyones if part is not None])

    def greedy(
        self, policy: TrainedPolicy, scenarios: Sequence[Scenario], *, decoding: Decoding, policy_step: int
    ) -> Success:
        share, found = self._share(scenarios), None
        if share is not None:
            found = self.own.greedy(policy, scenarios[share], decoding=decoding, policy_step=policy_step)
        return join_successes([part for part in self.channel.gather(found) if part is not None])

    def close(self) -> None:
        self.own.close()

    def _share(self, scenarios: Sequence[Scenario]) -> slice | None:
        """Returns this process's share, None where there are fewer groups than processes."""
        shares = whole_groups(scenarios, self.channel.ranks)
        return shares[self.channel.rank] if self.channel.rank < len(shares) else None


class LeaderRollouts:
    """The first of the learner's processes asks `source`, which spans machines, and shares what it gets."""

    def __init__(self, source: Rollouts | None, max_worlds: int, channel: Channel) -> None:
        """source: None in all but the first process."""
        self.source = source
        self.max_worlds = max_worlds
        self.channel = channel

    def sample(
        self,
        policy: TrainedPolicy,
        scenarios: Sequence[Scenario],
        *,
        temperature: float,
        random_key: Sequence[int],
        policy_step: int,
        keep_inputs: bool = True,
        times: PartTimes | None = None,
    ) -> Trajectories:
        source = self.source
        return self.channel.lead(
            lambda: source.sample(
                policy,
                scenarios,
                temperature=temperature,
                random_key=random_key,
                policy_step=policy_step,
                keep_inputs=keep_inputs,
                times=times,
            )
            if source is not None
            else None
        )

    def greedy(
        self, policy: TrainedPolicy, scenarios: Sequence[Scenario], *, decoding: Decoding, policy_step: int
    ) -> Success:
        source = self.source
        return self.channel.lead(
            lambda: source.greedy(policy, scenarios, decoding=decoding, policy_step=policy_step)
            if source is not None
            else None
        )

    def close(self) -> None:
        if self.source is not None:
            self.source.close()


def share_among(own: LocalRollouts, engine: Engine) -> Rollouts:
    """Returns one process's simulator, or that of all of the engine's processes."""
    return own if engine.ranks == 1 else RankRollouts(own, engine.channel())


def whole_groups(scenarios: Sequence[Scenario], parts: int) -> list[slice]:
    """Returns at most `parts` slices of about equal size, none empty, that never part equal neighbours: a group."""
    starts = [i for i in range(len(scenarios)) if i == 0 or scenarios[i] != scenarios[i - 1]]
    edges = [*starts, len(scenarios)]
    shares = np.array_split(np.arange(len(starts)), min(parts, len(starts)))
    return [slice(edges[share[0]], edges[share[-1] + 1]) for share in shares]


def join_successes(parts: Sequence[Success]) -> Success:
    return Success(
        success=np.concatenate([part.success for part in parts]),
        steps=np.concatenate([part.steps for part in parts]),
    )
