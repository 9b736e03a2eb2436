"""Writes a tiny OpenVLA-OFT with random weights in the published layout, to walk the whole path with no download."""

from pathlib import Path

import msgspec

from rehearsal.config import command_line
from rehearsal.errors import run_command
from training.policies.openvla.prompt import make_tokenizer
from training.policies.openvla.tiny import make_tiny, tiny_sizes, write_tiny
from training.simulators.twin.tasks import TASKS


class TinyOpenVLA(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to write, and where to."""

    out: Path = Path("runs/tiny_openvla")
    """The checkpoint's folder."""
    seed: int = 0
    """Of the weights."""
    image_px: int = 56
    """Side of its pictures, a multiple of 14."""
    hidden: int = 64
    """Width of the language model."""
    layers: int = 3
    """Its layers."""


def main() -> None:
    config = command_line(TinyOpenVLA, description=__doc__ or "")
    sizes = tiny_sizes(image_px=config.image_px, hidden=config.hidden, layers=config.layers)
    # Neither chunk nor action dimension is in a checkpoint: they are told to it when it is adopted.
    write_tiny(config.out, make_tiny(sizes, config.seed, chunk_steps=1, action_dim=1))
    make_tokenizer(config.out, [text for task in TASKS.values() for text in task.instructions])
    print(f"{config.out}: random weights, to be fine-tuned: python training/sft.py --checkpoint {config.out}")


if __name__ == "__main__":
    run_command(main)
