"""The loop around a learner: resume, step, log, evaluate, keep checkpoints, end cleanly on Ctrl-C."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol

import msgspec
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from training.policies.policy import Policy
from training.run_folder import RunFolder


class LoopOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When to look and what to keep."""

    evaluate_every: int = 10
    """Steps between greedy evaluations on validation scenarios; 0: never. The last step is always evaluated."""
    evaluate_scenarios: int = 50
    """Validation scenarios of an evaluation."""
    checkpoint_every: int = 10
    """Steps between checkpoints; the last step and an interrupted one always leave one."""
    keep_checkpoints: int = 2
    keep_best: bool = True
    """policy/ is the one with the best evaluation, the later of two equals; off: that of the last step."""


class Learner(Protocol):
    """What the loop needs; `step` counts the updates made."""

    step: int

    @property
    def policy(self) -> Policy: ...

    @property
    def finished(self) -> bool:
        """Whether all of the updates asked for are made."""
        ...

    def update(self) -> dict[str, float]: ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...


def train(
    learner: Learner,
    run: RunFolder,
    *,
    steps: int,
    options: LoopOptions,
    evaluate: Callable[[], dict[str, float]],
    score: str,
    agree: Callable[[bool], bool] = bool,
) -> float:
    """Updates until the learner has finished; returns the score of the policy kept in policy/.

    steps: the most updates that it will make, for the progress bar.
    evaluate: returns scalars of the policy as it stands; `score` is the one to be large. Raises KeyboardInterrupt
    after the step under way, with a checkpoint kept. agree: whether any of the learner's processes says yes.
    """
    judge = _Judge(learner, run, evaluate, score, options.keep_best)
    with progress_bar(shown=run.leads) as bar, stop_request() as stop:
        if run.state is not None:
            learner.load_state(run.state)
            judge.best = run.state["best"]
        elif options.evaluate_every:
            bar.console.print(judge.assess({}))
        task = bar.add_task(run.path.name, total=steps, completed=learner.step, shown="")
        while not learner.finished:
            scalars = learner.update()
            last, stopped = learner.finished, agree(bool(stop))
            if last or (options.evaluate_every and learner.step % options.evaluate_every == 0):
                bar.console.print(judge.assess(scalars))
            else:
                run.log(learner.step, scalars)
            if last or stopped or learner.step % options.checkpoint_every == 0:
                run.save_checkpoint(learner.step, {**learner.state(), "best": judge.best}, options.keep_checkpoints)
            bar.update(task, completed=learner.step, shown=summary(scalars))
            if stopped:
                raise KeyboardInterrupt
    return judge.best


@dataclass
class _Judge:
    """Evaluates the policy and keeps the one to keep; `best` is the score of the one kept."""

    learner: Learner
    run: RunFolder
    evaluate: Callable[[], dict[str, float]]
    score: str
    keep_best: bool
    best: float = float("-inf")

    def assess(self, scalars: dict[str, float]) -> str:
        """Logs the step's scalars with those of an evaluation; returns a line that says how it stands."""
        found = scalars | self.evaluate()
        self.run.log(self.learner.step, found)
        if found[self.score] >= self.best or not self.keep_best:
            self.best = found[self.score]
            self.run.save_policy(self.learner.policy)
        return f"step {self.learner.step}: {summary(found)}"


@contextmanager
def stop_request() -> Iterator[list[int]]:
    """Yields a list that the first Ctrl-C (or SIGTERM) makes true; a second one interrupts at once."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def progress_bar(*, shown: bool = True) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}"),
        console=Console(stderr=True, quiet=not shown),
    )


def summary(scalars: dict[str, float]) -> str:
    """Returns what the progress bar says of a step."""
    shown = ("loss", "sampled_success", "greedy_success", "clip_fraction")
    return "  ".join(f"{name} {scalars[name]:.3f}" for name in shown if name in scalars)
