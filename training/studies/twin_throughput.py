"""How fast the twin runs, with a picture at every chunk boundary, and where the time of a GRPO rollout goes.

Control steps a second: worlds that move about their home pose, none finished, one camera seen every chunk, nothing
else on the machine. Shares: of one rollout with a fresh policy, sampled as GRPO samples.
"""

import time
from pathlib import Path

import msgspec
import numpy as np
import torch

from rehearsal.action_codec import ActionCodec
from rehearsal.cell import Cell, read_cell
from rehearsal.results import write_result
from rehearsal.simulation import scenarios
from rehearsal.transforms import InputTransform
from training.policies.compact import CompactPolicy, CompactPolicyConfig
from training.policies.trained_policy import PolicyRecord, TrainedPolicy
from training.reinforcement.rollout import PartTimes, sample_trajectories
from training.simulators.twin.simulator import TwinSimulator


class TwinThroughput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `python benchmarks/twin_throughput.py`."""

    cell: Path = Path("launch/cells/single_piper.toml")
    task: str = "click_bell"
    camera: str = "head"
    side_px: int = 128
    worlds: tuple[int, ...] = (1, 16, 64, 256)
    chunk_steps: int = 10
    repeats: int = 3
    """The fastest of so many episodes is kept: the others were disturbed."""
    result: Path = Path("results/twin_throughput.json")


def run_benchmark(config: TwinThroughput) -> dict[str, float]:
    """Measures, writes the result file and returns its figures."""
    start = time.monotonic()
    cell = read_cell(config.cell)
    figures: dict[str, float] = {}
    for worlds in config.worlds:
        steps_per_s, rendering = max(measure(cell, config, worlds) for _ in range(config.repeats))
        figures[f"control_steps_per_s.worlds_{worlds}"] = round(steps_per_s, 1)
        figures[f"rendering_share.worlds_{worlds}"] = round(rendering, 3)
    figures |= rollout_shares(cell, config)
    seeds = {"scenarios": scenarios(config.task, "train", 1)[0].seed, "policy": 0}
    write_result(config.result, figures=figures, seeds=seeds, seconds=time.monotonic() - start)
    return figures


def measure(cell: Cell, config: TwinThroughput, worlds: int) -> tuple[float, float]:
    """Returns control steps a second, pictures included, and the share of the time that they took."""
    simulator = TwinSimulator(
        cell, config.task, cameras=(config.camera,), side_px=config.side_px, max_worlds=worlds
    )
    index = range(worlds)
    rng = np.random.default_rng(0)
    simulator.reset(scenarios(config.task, "train", worlds))
    home = simulator.observe(index).state
    rendering = 0.0
    steps = 0
    start = time.monotonic()
    while steps + config.chunk_steps < simulator.horizon_steps:
        before = time.monotonic()
        simulator.observe(index)
        rendering += time.monotonic() - before
        away = rng.uniform(-0.2, 0.2, home.shape) * (np.abs(home) > 0.1)
        progress = np.linspace(0, 1, config.chunk_steps)[:, None]
        simulator.step(index, home[:, None] + progress * away[:, None])
        steps += config.chunk_steps
    seconds = time.monotonic() - start
    played = int(simulator.outcomes().steps.sum())
    simulator.close()
    return played / seconds, rendering / seconds


def rollout_shares(cell: Cell, config: TwinThroughput, side_px: int = 96) -> dict[str, float]:
    """Returns the shares of rendering, physics and policy in the rollout of 256 trajectories."""
    torch.manual_seed(0)
    simulator = TwinSimulator(cell, config.task, cameras=(config.camera,), side_px=side_px, max_worlds=256)
    spec = cell.action_spec()
    model = CompactPolicy.new(
        CompactPolicyConfig(cameras=1, side_px=side_px, state_dim=spec.dim, action_dim=spec.dim), seed=0
    )
    transform = InputTransform(
        cameras=(config.camera,), side_px=side_px, state_mean=(0.0,) * spec.dim, state_std=(1.0,) * spec.dim,
        text_buckets=512, text_length=16,
    )  # fmt: skip
    codec = ActionCodec(
        chunk_steps=config.chunk_steps, knots=2, bins=256,
        lower=(-0.3,) * spec.dim, upper=(0.3,) * spec.dim, relative=(True,) * spec.dim,
    )  # fmt: skip
    record = PolicyRecord(cell=cell.name, task=config.task, action_spec=spec, transform=transform, codec=codec)
    policy = TrainedPolicy(model.eval(), record)
    times = PartTimes()
    for part in (PartTimes(), times):  # the first rollout only warms up
        sample_trajectories(
            simulator, policy, scenarios(config.task, "train", 256), temperature=1.6, random_key=(0, 0), times=part
        )
    simulator.close()
    total = sum(times.seconds.values())
    return {f"share_{name}": round(seconds / total, 3) for name, seconds in times.seconds.items()}
