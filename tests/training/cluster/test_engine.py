"""The engines give one and the same step: batch 8 = 2 x 4 accumulated = 2 processes x 4, by DDP and by FSDP2."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rehearsal.errors import RehearsalError
from rehearsal.simulation import scenarios
from training.engine.engine import EngineOptions, make_engine
from training.engine.shares import shares
from training.policies.trained_policy import TrainedPolicy
from training.reinforcement.rollout import sample_trajectories

ROOT = Path(__file__).parents[3]
PROCESS = Path(__file__).with_name("engine_process.py")
Maker = Callable[..., TrainedPolicy]


def run_processes(kind: str, precision: str, folder: Path, count: int) -> dict[str, Any]:
    """Returns what the first of `count` processes found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    command = [sys.executable, str(PROCESS), kind, precision, str(folder)]
    started = [
        subprocess.Popen(
            command, env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE, text=True
        )
        for rank in range(count)
    ]
    errors = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0] * count, "\n".join(errors)
    return torch.load(folder / f"{kind}_{precision}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine")


@pytest.fixture
def alone(folder: Path, toy: Any, toy_policy: Maker) -> dict[str, Any]:
    """What one process finds on eight trajectories; made once."""
    if not (folder / "local_float32.pt").is_file():
        policy = toy_policy()
        policy.save(folder / "policy")
        batch = sample_trajectories(
            toy(tolerance=0.4), policy, scenarios("toy_reach", "train", 8), temperature=1.6, random_key=(0,)
        )
        advantages = np.linspace(-1, 1, batch.frames)
        arrays = batch.arrays() | {"advantages": advantages}
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, folder / "batch.pt")
        run_processes("local", "float32", folder, 1)
    return torch.load(folder / "local_float32.pt")


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def test_passes_of_one_process_add_up(alone: dict[str, Any]) -> None:
    whole, *accumulated = alone["gradients"].values()
    assert max(float(grad.abs().max()) for grad in whole.values()) > 1e-2
    assert all(largest_difference(whole, each) < 1e-5 for each in accumulated)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_make_the_step_of_one(kind: str, alone: dict[str, Any], folder: Path) -> None:
    found = run_processes(kind, "float32", folder, 2)
    for frames, grads in found["gradients"].items():
        assert largest_difference(alone["gradients"][frames], grads) < 1e-5
    for ours, theirs in zip(alone["scalars"], found["scalars"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)
    # Adam divides by the gradient's size: where that is all but zero, its rounding is what moves the weight.
    assert largest_difference(alone["weights"], found["weights"]) < 1e-4
    assert largest_difference(found["state"]["model"], found["weights"]) == 0, "what samples is what has learned"
    assert found["third_resumed"] == pytest.approx(found["third"], rel=1e-6)
    assert found["critic"] == pytest.approx(alone["critic"], rel=1e-3, abs=1e-5)
    assert torch.allclose(found["values"], alone["values"], atol=1e-4)


@pytest.mark.slow
def test_bfloat16_passes_keep_float32_weights(alone: dict[str, Any], folder: Path) -> None:
    """Eight bits of mantissa: gradients agree to a few percent of their norm."""
    found = run_processes("fsdp", "bfloat16", folder, 2)
    assert {tensor.dtype for tensor in found["state"]["model"].values()} == {torch.float32}
    ours, theirs = (torch.cat([g.flatten() for g in each["gradients"][1000].values()]) for each in (alone, found))
    assert float((ours - theirs).norm() / ours.norm()) < 0.1


@pytest.mark.parametrize(("frames", "at_once", "ranks"), [(1, 4, 2), (7, 2, 3), (24, 4, 2), (9, 100, 4)])
def test_shares_cover_every_frame_once_in_equally_many_passes(frames: int, at_once: int, ranks: int) -> None:
    by_rank = [list(shares(frames, at_once, rank, ranks)) for rank in range(ranks)]
    counted = np.concatenate([share.rows for each in by_rank for share in each if share.counts])
    assert sorted(counted) == list(range(frames))
    assert len({len(each) for each in by_rank}) == 1
    assert all(1 <= len(share.rows) <= at_once for each in by_rank for share in each)
    assert all([share.last for share in each] == [False] * (len(each) - 1) + [True] for each in by_rank)


def test_a_process_alone_is_told_how_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(RehearsalError, match="accelerate launch"):
        make_engine(EngineOptions(kind="fsdp"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RehearsalError, match="every one would train alone"):
        make_engine(EngineOptions())
