"""From the expert's attempts on train scenarios to a LeRobot dataset of those that succeeded."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rehearsal.cell import Cell, read_cell
from rehearsal.config import plain
from rehearsal.errors import RehearsalError
from rehearsal.results import provenance
from rehearsal.simulation import SPLIT_START, scenarios
from training.demonstrations import dataset_format
from training.demonstrations.dataset_format import DatasetInfo
from training.demonstrations.lerobot_writer import LeRobotWriter
from training.demonstrations.video_file import Quality
from training.experts.demonstrations import Attempt, attempts
from training.experts.expert import Expert
from training.simulators.twin.simulator import TwinSimulator

RECORD = "meta/collection.json"

# May differ between the runs that fill one dataset: they change how much of it there is, not what it is.
_FREE = ("out", "cell", "episodes", "max_worlds", "threads")

# Fewer successes than this share of so many attempts mean that something is wrong with the cell or the expert.
_GIVE_UP_SHARE, _GIVE_UP_ATTEMPTS = 0.1, 50


class CollectConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `python training/collect_demos.py`."""

    cell: Path = Path("launch/cells/single_piper.toml")
    task: str = "click_bell"
    episodes: int = 100
    """Successful episodes that the dataset is to hold; run again with more to add some."""
    out: Path = Path("runs/demonstrations")
    """Folder of the dataset."""
    cameras: tuple[str, ...] = ()
    """Cameras of the cell to record; all of them by default."""
    side_px: int = 96
    """Side of the square pictures."""
    quality: Quality = "lossless"
    after_success_steps: int = 10
    """Control steps kept after the success, so that a demonstration shows how to end."""
    max_worlds: int = 16
    """Worlds played at once: their pictures are all in memory."""
    threads: int = 0
    """Threads that simulate and render; 0: one a core."""


def collect(config: CollectConfig) -> str:
    """Fills the dataset up to `episodes`, going on where an earlier run ended; returns what it holds, in words.

    Raises RehearsalError when the folder holds demonstrations of something else.
    """
    cell = read_cell(config.cell)
    cell.check_task(config.task)
    cameras = config.cameras or tuple(camera.name for camera in cell.cameras)
    names = cell.action_spec().names
    info = DatasetInfo(
        robot_type=cell.name,
        rate_hz=cell.control_rate_hz,
        state_names=names,
        action_names=names,
        cameras={cell.camera(name).name: (config.side_px, config.side_px) for name in cameras},
        quality=config.quality,
    )
    _check_record(config, cell)
    tried = _scenarios_used(config.out)
    with LeRobotWriter(config.out, info, append=True) as writer:
        if writer.episodes < config.episodes:
            tried = _fill(writer, config, cell, tried)
        return f"{writer.episodes} demonstrations of {config.task} in {config.out}; the expert {_rate(writer, tried)}"


def _fill(writer: LeRobotWriter, config: CollectConfig, cell: Cell, tried: int) -> int:
    """Adds episodes until there are enough; returns how many scenarios of the split were tried in all."""
    simulator = TwinSimulator(
        cell,
        config.task,
        cameras=tuple(writer.info.cameras),
        side_px=config.side_px,
        max_worlds=config.max_worlds,
        threads=config.threads or None,
        stop_at_success=False,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=Console(stderr=True)) as progress:
            bar = progress.add_task(config.task, total=config.episodes, completed=writer.episodes)
            for attempt in _attempts(simulator, writer, config, tried):
                tried += 1
                if attempt.success:
                    writer.add_episode(
                        state=attempt.state,
                        action=attempt.action,
                        images=attempt.images,
                        task=attempt.instruction,
                        scenario_seed=attempt.scenario.seed,
                    )
                progress.update(bar, completed=writer.episodes)
                if tried >= _GIVE_UP_ATTEMPTS and writer.episodes < _GIVE_UP_SHARE * tried:
                    raise RehearsalError(
                        f"the expert {_rate(writer, tried)} at {config.task} in {config.cell}: is the task's region "
                        "within the arm's reach (object_position_m), and are the limits those of the arm?"
                    )
    finally:
        simulator.close()
    return tried


def _attempts(
    simulator: TwinSimulator, writer: LeRobotWriter, config: CollectConfig, first: int
) -> Iterator[Attempt]:
    """Yields attempts at the train scenarios from number `first` on until the writer has enough."""
    expert = Expert(simulator.cell, config.task)
    while (missing := config.episodes - writer.episodes) > 0:
        chosen = scenarios(config.task, "train", min(missing, simulator.max_worlds), first)
        yield from attempts(simulator, expert, chosen, after_success_steps=config.after_success_steps)
        first += len(chosen)


def _rate(writer: LeRobotWriter, tried: int) -> str:
    share = f" ({100 * writer.episodes / tried:.0f} %)" if tried else ""
    return f"succeeded {writer.episodes} of {tried} times{share}"


def _scenarios_used(root: Path) -> int:
    """Returns how many scenarios of the train split lie behind the dataset's last episode."""
    records = dataset_format.read_episodes(root)
    return records[-1].scenario_seed - SPLIT_START["train"] + 1 if records else 0


def _check_record(config: CollectConfig, cell: Cell) -> None:
    """Writes what the dataset is made of beside it, or compares it with what is there."""
    path = config.out / RECORD
    asked = {name: value for name, value in plain(config).items() if name not in _FREE} | {"cell": plain(cell)}
    asked = json.loads(json.dumps(asked))  # as it will be read: lists for tuples
    if path.is_file() and dataset_format.read_episodes(config.out):
        there: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["made_of"]
        different = [name for name in asked if there.get(name) != asked[name]]
        if different:
            raise RehearsalError(
                f"{config.out} holds demonstrations with another {' and '.join(different)}; give another --out or "
                "delete that folder"
            )
        return
    dataset_format.write_json(path, {"made_of": asked, **provenance()})
