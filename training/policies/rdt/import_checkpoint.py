"""From a published RDT checkpoint, and the encoders beside it, to a policy's folder for one cell."""

from pathlib import Path

import msgspec
import torch

from rehearsal.cell import read_cell
from rehearsal.errors import unknown_choice
from training.policies.rdt.checkpoint import load_rdt
from training.policies.rdt.embeddings import EncoderConditions, EncoderOptions
from training.policies.rdt.policy import RDTPolicy, RDTRecord
from training.policies.rdt.unified_action import published_layout


class ImportRDT(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `python training/import_rdt.py`."""

    checkpoint: Path = Path("rdt-1b")
    """Folder of the checkpoint: config.json and model.safetensors or pytorch_model.bin."""
    language: Path = Path("t5-v1_1-xxl")
    """A T5 folder, or a file of language embeddings by instruction (.safetensors, .pt)."""
    vision: Path = Path("siglip-so400m-patch14-384")
    """A SigLIP folder."""
    cell: Path = Path("launch/cells/dual_piper.toml")
    task: str = "pick_bottle"
    """A task that the cell lists."""
    external: str | None = "head"
    """The cell's camera in RDT's external place."""
    right: str | None = None
    """Its right wrist camera; a robot's only wrist camera goes here."""
    left: str | None = None
    """Its left wrist camera."""
    side_px: int = 384
    """Side of the pictures that a simulator draws."""
    chunk_steps: int | None = None
    """Actions of a sample that are played; all of them by default."""
    seed: int = 0
    """Of the sampling noise."""
    half: bool = True
    """Keep model and encoders in bfloat16, as they were trained; off: float32."""
    out: Path = Path("runs/rdt")
    """The policy's folder."""


def import_rdt(config: ImportRDT) -> RDTPolicy:
    """Writes the policy's folder `out` and returns the policy; raises RehearsalError when something does not fit."""
    cell = read_cell(config.cell)
    task = cell.check_task(config.task)
    options = EncoderOptions(
        external=config.external,
        right=config.right,
        left=config.left,
        language=str(config.language.resolve()),
        vision=str(config.vision.resolve()),
        side_px=config.side_px,
    )
    for camera in options.cameras:
        if camera not in (names := [known.name for known in cell.cameras]):
            raise unknown_choice(f"camera of cell {cell.name}:", camera, names)
    spec = cell.action_spec()
    layout = published_layout(spec)
    rdt = load_rdt(config.checkpoint, torch.bfloat16 if config.half else torch.float32)
    record = RDTRecord(
        cell=cell.name,
        task=task,
        action_spec=spec,
        layout=layout,
        conditions=options,
        chunk_steps=config.chunk_steps or rdt.config.pred_horizon,
        seed=config.seed,
    )
    policy = RDTPolicy(rdt, EncoderConditions(options, rdt.config, Path(), rdt.dtype), record)
    policy.save(config.out)
    return policy
