"""Rollouts on Ray's workers, on this machine or on many.

A draw is cut between groups into pieces, one or more a worker; each piece names the version of the weights that shall
sample it, and a worker that has another fetches them from the object store first. So every trajectory of a draw is of
the policy that was asked for (`policy_step`), and how stale a batch is, is decided by the collector alone: surplus
groups wait for at most three batches, because a draw asks for at most four times what is missing; an asynchronous
collector adds one.

A worker whose process dies, or whose machine does, is replaced, and its piece goes back to the front of the queue;
random numbers follow from the place in the draw, so the draw ends in the same trajectories. A worker that hangs
without dying is not noticed.
"""

import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rehearsal.errors import RehearsalError
from rehearsal.simulation import Scenario
from training.engine.channel import Channel
from training.policies.policy import Decoding
from training.policies.trained_policy import TrainedPolicy
from training.reinforcement.cluster_options import ClusterOptions
from training.reinforcement.rollout import PartTimes, Success
from training.reinforcement.rollouts import LeaderRollouts, Rollouts, join_successes, whole_groups
from training.reinforcement.trajectory import Trajectories, concatenate

try:
    import ray
    from ray.exceptions import RayActorError, RayTaskError
except ImportError as error:
    raise RehearsalError(
        f"cluster.workers needs Ray ({error}): pip install -e '.[cluster]'; on one machine: --cluster.workers 0"
    ) from None
from training.reinforcement.ray_worker import MakeWorker, RolloutWorker, Weights, pack

# A call of a worker: the method's name and its arguments after the weights.
Call = tuple[str, tuple[Any, ...]]


@dataclass
class _Crew:
    """The workers: those that build their simulator, by what they will answer, and those that wait for a piece."""

    starting: dict[Any, Any] = field(default_factory=dict)
    idle: list[Any] = field(default_factory=list)
    lost_starts: int = 0


class RayRollouts:
    """See Rollouts. Two threads may ask; the second waits."""

    def __init__(self, make: MakeWorker, options: ClusterOptions, worlds_a_worker: int) -> None:
        """Starts or joins Ray and begins to start the workers; worlds_a_worker: as `make` makes them.

        Raises RehearsalError when Ray cannot be reached or has not what the workers need.
        """
        self.options = options
        self.max_worlds = options.workers * worlds_a_worker
        self._worlds_a_worker = worlds_a_worker
        self._own_ray = start_ray(options)
        self._make = ray.put(make)
        self._actor: Any = ray.remote(RolloutWorker)  # Ray adds methods that no type checker sees
        self._crew = _Crew()
        self._weights: Weights | None = None
        self._lock = threading.Lock()
        for _ in range(options.workers):
            self._hire()

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
        options = {"temperature": temperature, "random_key": tuple(random_key), "keep_inputs": keep_inputs}
        calls = [
            ("sample", (scenarios[piece], piece.start, options)) for piece in self._pieces(scenarios)
        ]
        times = times or PartTimes()
        with times.part("sampling"):
            answers = self._run(calls, policy, policy_step)
        for _, seconds in answers:
            for name, value in seconds.items():
                times.seconds[name] += value / self.options.workers
        return concatenate([drawn for drawn, _ in answers])

    def greedy(
        self, policy: TrainedPolicy, scenarios: Sequence[Scenario], *, decoding: Decoding, policy_step: int
    ) -> Success:
        calls = [("greedy", (scenarios[piece], decoding)) for piece in self._pieces(scenarios)]
        return join_successes(self._run(calls, policy, policy_step))

    def close(self) -> None:
        """Ends the workers, and Ray if it was started here."""
        for worker in (*self._crew.starting.values(), *self._crew.idle):
            ray.kill(worker)
        self._crew = _Crew()
        if self._own_ray:
            ray.shutdown()

    def _pieces(self, scenarios: Sequence[Scenario]) -> list[slice]:
        """Returns pieces of whole groups: as many as fill every worker's worlds once, or several times over."""
        rounds = -(-len(scenarios) // self.max_worlds)
        return whole_groups(scenarios, rounds * self.options.workers)

    def _run(self, calls: Sequence[Call], policy: TrainedPolicy, policy_step: int) -> list[Any]:
        """Returns the answers in order; raises RehearsalError when a piece cannot be done."""
        with self._lock:
            if self._weights is None or self._weights.version != policy_step:
                self._weights = Weights(policy_step, [ray.put(pack(policy.model))])
            return self._distribute(calls, self._weights)

    def _distribute(self, calls: Sequence[Call], weights: Weights) -> list[Any]:
        waiting, answers = deque(range(len(calls))), dict[int, Any]()
        busy: dict[Any, tuple[Any, int]] = {}
        deaths: Counter[int] = Counter()
        try:
            while len(answers) < len(calls):
                while waiting and self._crew.idle:
                    worker, number = self._crew.idle.pop(), waiting.popleft()
                    method, arguments = calls[number]
                    busy[getattr(worker, method).remote(weights, *arguments)] = (worker, number)
                if (done := self._next(busy)) in self._crew.starting:
                    self._welcome(done)
                    continue
                worker, number = busy.pop(done)
                try:
                    answers[number] = answer(done)
                    self._crew.idle.append(worker)
                except RayActorError as error:
                    deaths[number] += 1
                    waiting.appendleft(number)
                    self._replace(worker)
                    if deaths[number] >= self.options.deaths_a_piece:
                        raise RehearsalError(
                            f"piece {number} of a draw of {len(calls)} has cost {deaths[number]} rollout workers: "
                            f"{first_line(error)}; look at its worker's log in /tmp/ray/session_latest/logs, or give "
                            "a worker fewer worlds (--max-worlds)"
                        ) from None
        finally:
            # A worker answers in order: what it still does is done, and dropped, before its next piece.
            self._crew.idle.extend(worker for worker, _ in busy.values())
        return [answers[number] for number in range(len(calls))]

    def _next(self, busy: dict[Any, tuple[Any, int]]) -> Any:
        """Returns the next answer to come, of a worker at work or of one that starts."""
        # While a piece is being worked on there is no limit: episodes last as long as they last.
        patience_s = None if busy else self.options.start_timeout_s
        done, _ = ray.wait([*busy, *self._crew.starting], num_returns=1, timeout=patience_s)
        if not done:
            raise RehearsalError(
                f"no rollout worker has started within {self.options.start_timeout_s:g} s: machines have left the "
                "Ray cluster, or others use it; see `ray status`"
            )
        return done[0]

    def _hire(self) -> None:
        options = self.options
        worker = self._actor.options(
            num_cpus=options.cpus_a_worker, num_gpus=options.gpus_a_worker, scheduling_strategy="SPREAD"
        ).remote(options.cpus_a_worker)
        self._crew.starting[worker.start.remote(self._make)] = worker

    def _welcome(self, started: Any) -> None:
        """Takes a worker that has started among the idle ones, or replaces one that died of it."""
        worker = self._crew.starting.pop(started)
        try:
            answer(started)
        except RayActorError as error:
            self._crew.lost_starts += 1
            if self._crew.lost_starts >= self.options.deaths_a_piece:
                raise RehearsalError(
                    f"{self._crew.lost_starts} rollout workers in a row died as they started: {first_line(error)}; "
                    "see /tmp/ray/session_latest/logs"
                ) from None
            self._replace(worker)
        else:
            self._crew.lost_starts = 0
            self._crew.idle.append(worker)

    def _replace(self, worker: Any) -> None:
        ray.kill(worker)  # it may live, out of reach
        self._hire()


def lead_ray_rollouts(
    channel: Channel, make: MakeWorker, options: ClusterOptions, worlds_a_worker: int
) -> Rollouts:
    """Returns rollouts that the first of the learner's processes asks for and shares with the others."""
    source = RayRollouts(make, options, worlds_a_worker) if channel.rank == 0 else None
    if channel.ranks == 1 and source is not None:
        return source
    return LeaderRollouts(source, options.workers * worlds_a_worker, channel)


def start_ray(options: ClusterOptions) -> bool:
    """Joins the cluster, or starts one on this machine; returns whether it ends with this process's rollouts."""
    own = not ray.is_initialized()
    if own:
        try:
            ray.init(address=options.address or "local", include_dashboard=False, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise RehearsalError(
                f"no Ray cluster at cluster.address = {options.address!r}: {first_line(error)}; start one with "
                "`ray start --head --port 6379`, or leave the address out"
            ) from None
    for name, needed in (
        ("CPU", options.workers * options.cpus_a_worker),
        ("GPU", options.workers * options.gpus_a_worker),
    ):
        there = ray.cluster_resources().get(name, 0)
        if needed > there:
            if own:
                ray.shutdown()
            raise RehearsalError(
                f"cluster.workers = {options.workers} need {needed:g} {name}s and the Ray cluster has {there:g}: "
                "fewer workers, or less a worker, or more machines"
            )
    return own


def answer(reference: Any) -> Any:
    """Returns what a worker answered; a user's error there is one here, a bug keeps its traceback."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, RehearsalError):
            raise error.cause from None
        raise


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
