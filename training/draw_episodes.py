"""Draws one held-out episode of each task, played by its trained policy."""

from rehearsal.config import command_line
from rehearsal.errors import run_command
from training.studies.episode_strip import EpisodeStrip, draw


def main() -> None:
    print(draw(command_line(EpisodeStrip, description=__doc__ or "")))


if __name__ == "__main__":
    run_command(main)
