"""A run's folder and the loop: what is written, resumed, refused, and kept on Ctrl-C."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from rehearsal.errors import RehearsalError
from training.policies.policy import load_policy
from training.policies.trained_policy import TrainedPolicy
from training.run_folder import RunFolder, read_curve
from training.training_loop import LoopOptions, train

Maker = Callable[..., TrainedPolicy]


class Config(msgspec.Struct, frozen=True, kw_only=True):
    seed: int = 0
    nested: LoopOptions = LoopOptions()


class CountingLearner:
    """Its policy's first query holds the step; the score of an evaluation comes from a list."""

    def __init__(self, policy: TrainedPolicy, interrupt_at: int | None = None) -> None:
        self.policy, self.step, self.interrupt_at = policy, 0, interrupt_at
        self.steps = 0

    @property
    def finished(self) -> bool:
        return self.step >= self.steps

    def update(self) -> dict[str, float]:
        if self.step + 1 == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        self.step += 1
        with torch.no_grad():
            self.policy.model.queries.fill_(float(self.step))
        return {"loss": 1.0 / self.step, "broken": float("nan")}

    def state(self) -> dict[str, Any]:
        return {"model": self.policy.model.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.policy.model.load_state_dict(state["model"])


def kept_step(folder: Path) -> float:
    return load_policy(folder).model.queries[0, 0].item()


def run(folder: Path, learner: CountingLearner, scores: list[float], **options: Any) -> float:
    chosen = LoopOptions(**{"evaluate_every": 2, "checkpoint_every": 2, **options})
    learner.steps = len(scores) - 1
    with RunFolder(folder, Config()) as opened:
        return train(
            learner, opened, steps=learner.steps, options=chosen, score="greedy",
            evaluate=lambda: {"greedy": scores[learner.step]},
        )  # fmt: skip


def test_curve_checkpoints_and_the_best_policy(toy_policy: Maker, tmp_path: Path) -> None:
    learner = CountingLearner(toy_policy())
    assert run(tmp_path, learner, [0.1, 0, 0.5, 0, 0.5, 0, 0.4]) == 0.5
    curve = read_curve(tmp_path)
    assert [line["step"] for line in curve] == [0, 1, 2, 3, 4, 5, 6]
    assert [line["greedy"] for line in curve if "greedy" in line] == [0.1, 0.5, 0.5, 0.4]
    assert curve[2] == {"step": 2, "loss": 0.5, "greedy": 0.5}
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step_000004", "step_000006"]
    assert kept_step(tmp_path) == 4, "the later of two equals"
    assert list((tmp_path / "tensorboard").iterdir())
    history = load_policy(tmp_path).record.history
    assert len(history) == 1 and history[0]["config"]["seed"] == 0 and history[0]["run"] == tmp_path.name


def test_last_policy_is_kept_when_asked_to(toy_policy: Maker, tmp_path: Path) -> None:
    run(tmp_path, CountingLearner(toy_policy()), [0.9, 0, 0.5, 0.1], evaluate_every=0, keep_best=False)
    assert kept_step(tmp_path) == 3
    assert [line["greedy"] for line in read_curve(tmp_path) if "greedy" in line] == [0.1]


def test_interrupted_run_keeps_its_step_and_goes_on(toy_policy: Maker, tmp_path: Path) -> None:
    scores = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, CountingLearner(toy_policy(), interrupt_at=3), scores)
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == ["step_000002", "step_000003"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    learner = CountingLearner(toy_policy())
    assert run(tmp_path, learner, scores) == 0.5
    assert [line["step"] for line in read_curve(tmp_path)] == [0, 1, 2, 3, 4, 5]
    assert kept_step(tmp_path) == 5


def test_steps_after_the_last_checkpoint_are_logged_once(toy_policy: Maker, tmp_path: Path) -> None:
    with RunFolder(tmp_path, Config()) as opened:
        opened.save_checkpoint(2, {"best": 0.0}, keep=2)
        for step in (1, 2, 3):
            opened.log(step, {"loss": float(step)})
    with (tmp_path / "curve.jsonl").open("a") as curve:
        curve.write('{"step": 4, "lo')
    with RunFolder(tmp_path, Config()) as opened:
        assert opened.step == 2
        opened.log(3, {"loss": 33.0})
    assert read_curve(tmp_path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}, {"step": 3, "loss": 33.0}]


def test_another_config_is_refused_by_name(tmp_path: Path) -> None:
    RunFolder(tmp_path, Config()).close()
    RunFolder(tmp_path, Config()).close()
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["config"]["seed"] == 0 and {"command", "commit", "machine", "versions"} <= saved.keys()
    changed = Config(seed=1, nested=LoopOptions(evaluate_every=3))
    with pytest.raises(RehearsalError, match="another nested.evaluate_every, seed"):
        RunFolder(tmp_path, changed)
    with RunFolder(tmp_path, changed, free=("seed", "nested.evaluate_every")):
        assert json.loads((tmp_path / "config.json").read_text())["config"]["seed"] == 1
