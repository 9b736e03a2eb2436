"""A picture of episodes: for each task one row of moments, as the cell's first camera sees them, played by a policy."""

from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from rehearsal.cell import read_cell
from rehearsal.simulation import ObservationBatch, Scenario, scenarios
from rehearsal.transforms import square
from training.policies.policy import Policy, load_policy
from training.simulators.twin.simulator import TwinSimulator


class EpisodeStrip(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `python training/draw_episodes.py`."""

    cell: Path = Path("launch/cells/single_piper.toml")
    runs: Path = Path("runs/twin_tasks")
    """Folder with one folder a task, each with the run named by `stage`."""
    stage: str = "grpo"
    tasks: tuple[str, ...] = ()
    """All tasks of the cell by default."""
    scenario: int = 0
    """Which held-out scenario to play."""
    moments: int = 6
    side_px: int = 192
    out: Path = Path("docs/pictures/twin_episodes.jpg")


def draw(config: EpisodeStrip) -> str:
    """Writes the picture; returns a line that says what it shows."""
    cell = read_cell(config.cell)
    rows, words = [], []
    for task in config.tasks or cell.tasks:
        policy = load_policy(config.runs / task / config.stage)
        cameras = tuple({cell.cameras[0].name: None} | dict.fromkeys(policy.cameras))
        simulator = TwinSimulator(cell, task, cameras=cameras, side_px=config.side_px, max_worlds=1)
        frames = play(simulator, policy, scenarios(task, "held_out", 1, first=config.scenario)[0])
        words.append(f"{task} {'succeeded' if simulator.outcomes().success[0] else 'failed'}")
        simulator.close()
        chosen = np.linspace(0, len(frames) - 1, config.moments).round().astype(int)
        rows.append(np.concatenate([frames[i] for i in chosen], axis=1))
    config.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(config.out, quality=85)
    return f"{config.out}: held-out scenario {config.scenario}: {', '.join(words)}"


def play(simulator: TwinSimulator, policy: Policy, scenario: Scenario) -> list[np.ndarray]:
    """Returns what the simulator's first camera sees, uint8 (side, side, 3), at every decision and at the end.

    The policy gets the larger pictures averaged down to its own size.
    """
    simulator.reset([scenario])
    frames = []
    side = policy.side_px
    while True:
        seen = simulator.observe([0])
        frames.append(seen.images[simulator.cameras[0]][0])
        if simulator.outcomes().finished[0]:
            return frames
        small = {name: square(images, side) for name, images in seen.images.items()}
        batch = ObservationBatch(images=small, state=seen.state, instructions=seen.instructions)
        simulator.step([0], policy.act(batch))
