"""Numbers of the public reference implementation at a tiny configuration.

Computed by moojink/openvla-oft at 213c5ff with its transformers fork at bc339d9 and by PRIME-RL/SimpleVLA-RL at 7c51662
(pictures by tensorflow-cpu 2.15): all weights random and exact in bfloat16, in which they are stored; run in float32.
weights.safetensors: the checkpoint, of the embedding only the rows of `embed_ids` and of the head of words only those
of the 256 action tokens. arrays.npz: `libero.*` and `aloha.*`, inputs and results for one picture of 56 px with chunks
of 8 x 7 and 25 x 14 (ALOHA with the state's token; of its logits every fifth row); `picture.*` and `rectangle.*`, the
stages of one picture (of the larger ones every fourth row).
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from training.policies.openvla.checkpoint import load_openvla_model
from training.policies.openvla.model import OpenVLA
from training.policies.openvla.prompt import make_tokenizer
from training.policies.openvla.tiny import make_tiny, tiny_sizes, write_tiny

REFERENCE = Path(__file__).parent / "reference"
CHUNKS = {"libero": (8, 7), "aloha": (25, 14)}
EMBED, HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"


@pytest.fixture(scope="session")
def reference() -> dict[str, np.ndarray]:
    with np.load(REFERENCE / "arrays.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, reference: dict[str, np.ndarray]) -> dict[str, Path]:
    """The reference's checkpoint as LIBERO has it, with an L1 head, and as ALOHA has it, with a state's projector."""
    tensors = load_file(REFERENCE / "weights.safetensors")
    embed, head = tensors.pop("embed_rows"), tensors.pop("head_rows")
    tensors[EMBED], tensors[HEAD] = (torch.zeros(32064, embed.shape[1], dtype=embed.dtype) for _ in range(2))
    tensors[EMBED][torch.from_numpy(reference["embed_ids"])] = embed
    tensors[HEAD][31744:32000] = head
    folders = {}
    for robot in CHUNKS:
        folder = folders[robot] = tmp_path_factory.mktemp("openvla") / robot
        folder.mkdir()
        save_file(tensors, folder / "model.safetensors")
        for name in ("config.json", "dataset_statistics.json"):
            shutil.copy(REFERENCE / name, folder)
    sides = (("libero", "action_head", "l1_head"), ("aloha", "proprio_projector", "proprio_projector"))
    for robot, kind, source in sides:
        side = {f"module.{name}": tensor for name, tensor in load_file(REFERENCE / f"{source}.safetensors").items()}
        torch.save(side, folders[robot] / f"{kind}--50000_checkpoint.pt")
    return folders


@pytest.fixture(scope="session")
def models(checkpoints: dict[str, Path]) -> dict[str, OpenVLA]:
    return {
        robot: load_openvla_model(
            folder, chunk_steps=CHUNKS[robot][0], action_dim=CHUNKS[robot][1], dtype=torch.float32
        )
        for robot, folder in checkpoints.items()
    }


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint of random weights with a tokeniser that knows the twin's words for the bell."""
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    write_tiny(folder, make_tiny(tiny_sizes(hidden=32, layers=2), 0, chunk_steps=1, action_dim=1))
    make_tokenizer(folder, ["click the bell", "press the bell", "ring the desk bell", "push the button of the bell"])
    return folder


@pytest.fixture
def edited(tiny_checkpoint: Path, tmp_path: Path) -> Callable[..., Path]:
    """Returns a copy of the tiny checkpoint whose config.json has other values."""

    def edit(**changes: object) -> Path:
        folder = tmp_path / "edited"
        shutil.copytree(tiny_checkpoint, folder, dirs_exist_ok=True)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))
        return folder

    return edit
