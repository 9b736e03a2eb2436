"""From a LeRobot dataset on disk to the decision points that a policy learns from."""

from pathlib import Path

import numpy as np

from rehearsal.errors import RehearsalError
from rehearsal.transforms import square
from training.demonstrations.lerobot_reader import LeRobotReader
from training.imitation.demonstration_set import DemonstrationSet


def load_demonstrations(
    root: Path,
    *,
    cameras: tuple[str, ...],
    side_px: int,
    chunk_steps: int,
    stride_steps: int,
    episodes: int | None = None,
) -> DemonstrationSet:
    """Returns decision points every `stride_steps` rows of the first `episodes` episodes (all when None).

    Each has the next `chunk_steps` actions; past an episode's end its last action is repeated, which holds still.
    """
    reader = LeRobotReader(root)
    if episodes is not None and episodes > len(reader):
        raise RehearsalError(f"{episodes} demonstrations asked for; {root} holds {len(reader)}")
    images, state, actions, numbers = [], [], [], []
    instructions: list[str] = []
    found = reader.episodes(cameras, lambda length: np.arange(0, length, stride_steps), count=episodes)
    for number, episode in enumerate(found):
        ahead = np.minimum(episode.frames[:, None] + np.arange(chunk_steps), len(episode.action) - 1)
        images.append(np.stack([square(episode.images[name], side_px) for name in cameras], axis=1))
        state.append(episode.state[episode.frames])
        actions.append(episode.action[ahead])
        numbers.append(np.full(len(episode.frames), number))
        instructions += [episode.task] * len(episode.frames)
    return DemonstrationSet(
        images=np.concatenate(images),
        state=np.concatenate(state),
        actions=np.concatenate(actions),
        instructions=instructions,
        episode=np.concatenate(numbers),
    )
