"""The loop around a learner: resume, step, log, evaluate, keep checkpoints, end cleanly on Ctrl-C."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

from training.policies.trained_policy import TrainedPolicy
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
    policy: TrainedPolicy

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
) -> float:
    """Updates until `steps`; returns the best score, that of the policy kept in policy/.

    evaluate: returns scalars of the policy as it stands; `score` is the one to be large. Raises KeyboardInterrupt
    after the step under way, with a checkpoint kept.
    """
    best = float("-inf")
    if run.state is not None:
        learner.load_state(run.state)
        best = run.state["best"]
    elif options.evaluate_every:
        best = assess(learner, run, {}, best, options, evaluate, score)
    with progress_bar() as bar, stop_request() as stop:
        task = bar.add_task(run.path.name, total=steps, completed=learner.step, shown="")
        while learner.step < steps:
            scalars = learner.update()
            last = learner.step == steps
            if last or (options.evaluate_every and learner.step % options.evaluate_every == 0):
                best = assess(learner, run, scalars, best, options, evaluate, score)
            else:
                run.log(learner.step, scalars)
            if last or stop or learner.step % options.checkpoint_every == 0:
                run.save_checkpoint(learner.step, {**learner.state(), "best": best}, options.keep_checkpoints)
            bar.update(task, completed=learner.step, shown=summary(scalars, score, best))
            if stop:
                raise KeyboardInterrupt
    return best


def assess(
    learner: Learner,
    run: RunFolder,
    scalars: dict[str, float],
    best: float,
    options: LoopOptions,
    evaluate: Callable[[], dict[str, float]],
    score: str,
) -> float:
    """Evaluates, logs, keeps the policy when it is the one to keep; returns the best score so far."""
    found = evaluate()
    run.log(learner.step, scalars | found)
    value = found.get(score, float("-inf"))
    if value >= best or not options.keep_best:
        run.save_policy(learner.policy)
        return value
    return best


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


def progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}"),
        console=Console(stderr=True),
    )


def summary(scalars: dict[str, float], score: str, best: float) -> str:
    """Returns what the progress bar says of a step."""
    shown = {name: scalars[name] for name in ("loss", "sampled_success", "clip_fraction") if name in scalars}
    words = [f"{name} {value:.3f}" for name, value in shown.items()]
    return "  ".join([*words, f"best {score} {best:.3f}"] if best > float("-inf") else words)
