"""LIBERO's evaluations by name, because a success rate means little without the states and the horizon it is of.

- paper: the benchmark's stored initial states, 512 control steps: SimpleVLA-RL (Li et al. 2025, arXiv 2509.09674),
  which also trains on these states.
- oft: the same states with OpenVLA-OFT's horizons (Kim et al. 2025), about those of the longest demonstrations.
- held_out: initial states drawn afresh by the benchmark's own placement rules, never seen in training.
- pro: the suites of LIBERO-PRO (Zhou et al. 2025, arXiv 2510.03827), their own stored states and instructions.

A task of a LIBERO-PRO suite is found by the name of the base suite's, not by its number. What the package does not
hold, or what cannot be built, is reported as not available and counts in no mean.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rehearsal.errors import RehearsalError, unknown_choice
from rehearsal.simulation import Scenario, Split, VectorSimulator
from training.evaluation.success_rate import SuccessRate, success_rate
from training.policies.policy import Decoding, Policy
from training.reinforcement.rollout import Success, run_greedy
from training.simulators.workplace import Physics

Protocol = Literal["paper", "oft", "held_out", "pro"]

PAPER_HORIZON_STEPS = 512
OFT_HORIZON_STEPS = {
    "libero_spatial": 220,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
}
# What LIBERO-PRO appends to a suite's name, and what it changes there.
PERTURBATIONS = {"lan": "language", "object": "objects", "swap": "positions", "task": "task"}
PERTURBED_SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One suite of a protocol. changed: what a perturbation changed, or nothing."""

    suite: str
    changed: str
    split: Split
    horizon_steps: int


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """number, name: of the task in its own suite; found: None when it is not available, and then `missing` says why."""

    number: int
    name: str
    found: Success | None
    missing: str = ""

    @property
    def rate(self) -> SuccessRate | None:
        return success_rate(self.found.success, self.found.steps) if self.found else None


@dataclass(frozen=True, kw_only=True)
class PartResult:
    """One row of the table, and what it is made of."""

    part: Part
    tasks: list[TaskResult]

    @property
    def mean(self) -> SuccessRate | None:
        """Over all episodes of the tasks that are available, each of which has as many."""
        found = [task.found for task in self.tasks if task.found]
        if not found:
            return None
        return success_rate(
            np.concatenate([f.success for f in found]), np.concatenate([f.steps for f in found])
        )

    def figures(self) -> dict[str, float]:
        """Returns `<suite>.<number>` and `<suite>.mean`, each with its n, low and high."""
        figures: dict[str, float] = {}
        for task in self.tasks:
            if rate := task.rate:
                figures |= rate.figures(f"{self.part.suite}.{task.number}")
        if mean := self.mean:
            figures |= mean.figures(f"{self.part.suite}.mean")
        return figures


def protocol_parts(protocol: Protocol, suite: str) -> list[Part]:
    """Returns the suites that a protocol tries; raises RehearsalError when it is not defined for `suite`."""
    if protocol == "pro":
        if suite not in PERTURBED_SUITES:
            raise unknown_choice("suite for protocol pro:", suite, PERTURBED_SUITES)
        return [
            Part(suite=f"{suite}_{ending}", changed=what, split="stored", horizon_steps=PAPER_HORIZON_STEPS)
            for ending, what in PERTURBATIONS.items()
        ]
    horizon_steps = PAPER_HORIZON_STEPS
    if protocol == "oft":
        if suite not in OFT_HORIZON_STEPS:
            raise unknown_choice("suite for protocol oft:", suite, OFT_HORIZON_STEPS)
        horizon_steps = OFT_HORIZON_STEPS[suite]
    split: Split = "held_out" if protocol == "held_out" else "stored"
    return [Part(suite=suite, changed="nothing", split=split, horizon_steps=horizon_steps)]


@dataclass(frozen=True, kw_only=True)
class ProtocolRun:
    """Tries a policy by a protocol. n: episodes a task, the first so many of its states."""

    policy: Policy
    n: int
    decoding: Decoding
    physics: Physics
    max_worlds: int

    def run(self, protocol: Protocol, suite: str, task: str, done: Callable[[], None]) -> list[PartResult]:
        """Returns how the policy does on `task` of `suite`, or on what the protocol makes of it.

        done: called after each task. Raises RehearsalError for an unknown suite or task, when a task of a suite
        without perturbation cannot be played, and when nothing can.
        """
        from training.simulators.libero.workplace import LiberoWorkplace

        parts, base = protocol_parts(protocol, suite), LiberoWorkplace(suite)
        base.scenarios(
            task, parts[0].split, self.n * len(base.numbers(task))
        )  # too large an n is no missing task
        names = [each.name for each in base.tasks(task)]
        results = []
        for part in parts:
            tasks = []
            for name in names:
                tasks.append(self._try(part, name, may_be_missing=protocol == "pro"))
                done()
            results.append(PartResult(part=part, tasks=tasks))
        if all(result.mean is None for result in results):
            raise RehearsalError(
                f"protocol {protocol}: nothing could be tried: {results[0].tasks[0].missing}"
            )
        return results

    def _try(self, part: Part, name: str, *, may_be_missing: bool) -> TaskResult:
        number = -1
        try:
            number = _number_of(name, part.suite)
            simulator, chosen = self._open(part, number)
        except RehearsalError as error:
            if not may_be_missing:
                raise
            return TaskResult(number=number, name=name, found=None, missing=str(error))
        try:
            found = run_greedy(simulator, self.policy, chosen, decoding=self.decoding)
        finally:
            simulator.close()
        return TaskResult(number=number, name=name, found=found)

    def _open(self, part: Part, number: int) -> tuple[VectorSimulator, list[Scenario]]:
        """Returns a simulator that has entered one of the scenarios, so that what is missing shows here."""
        from training.simulators.libero.workplace import LiberoWorkplace

        workplace = LiberoWorkplace(part.suite, physics=self.physics, horizon_steps=part.horizon_steps)
        chosen = workplace.scenarios(str(number), part.split, self.n)
        simulator = workplace.simulator(
            str(number),
            cameras=self.policy.cameras,
            side_px=self.policy.side_px,
            max_worlds=min(self.max_worlds, self.n),
        )
        try:
            simulator.reset(chosen[:1])
        except RehearsalError:
            simulator.close()
            raise
        return simulator, chosen


def _number_of(name: str, suite: str) -> int:
    """Returns the number of the task of that name; raises RehearsalError when the suite has none."""
    from training.simulators.libero.package import suite_tasks

    for task in suite_tasks(suite):
        if task.name == name:
            return task.number
    raise RehearsalError(f"{suite} has no task {name}")


def task_count(protocol: Protocol, suite: str, task: str) -> int:
    """Returns how many tasks a run will try."""
    from training.simulators.libero.workplace import LiberoWorkplace

    return len(protocol_parts(protocol, suite)) * len(LiberoWorkplace(suite).numbers(task))


def table(results: Sequence[PartResult]) -> str:
    """Returns a row a suite, then a row a task, as text in columns."""
    suites = [("suite", "changed", "states", "horizon", "tasks", "success", "95 % interval")]
    tasks = [("suite", "task", "success", "95 % interval", "name")]
    for result in results:
        part, tried = result.part, [task for task in result.tasks if task.found]
        share = f"{len(tried)} of {len(result.tasks)}"
        suites.append(
            (part.suite, part.changed, part.split, str(part.horizon_steps), share, *_words(result.mean, ""))
        )
        for task in result.tasks:
            number = str(task.number) if task.number >= 0 else "-"
            tasks.append((part.suite, number, *_words(task.rate, task.missing), task.name))
    return "\n".join([*_columns(suites), "", *_columns(tasks)])


def missing(results: Sequence[PartResult]) -> str:
    """Returns one sentence that names what is not available, or nothing."""
    gone = [
        f"{r.part.suite} {task.name} ({task.missing})" for r in results for task in r.tasks if not task.found
    ]
    return f"not available, and in no mean: {'; '.join(gone)}" if gone else ""


def _words(rate: SuccessRate | None, missing: str) -> tuple[str, str]:
    if rate is None:
        return "not available", missing
    success = f"{rate.successes}/{rate.n} = {100 * rate.rate:.1f} %"
    return success, f"[{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
