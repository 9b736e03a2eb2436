"""A checkpoint's folder written over another one, a projector inside the model, and damaged files of every kind."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rehearsal.errors import RehearsalError
from training.policies.openvla import checkpoint
from training.policies.openvla.checkpoint import load_openvla_model, save_openvla
from training.policies.openvla.model import OpenVLA
from training.policies.openvla.tiny import make_tiny, tiny_sizes, write_tiny

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
SIDE = "proprio_projector--0_checkpoint.pt"


def tiny(seed: int, state_dim: int = 4) -> OpenVLA:
    sizes = tiny_sizes(hidden=32, layers=2)
    return make_tiny(sizes, seed, chunk_steps=2, action_dim=3, state_dim=state_dim)


def load(folder: Path) -> OpenVLA:
    return load_openvla_model(folder, chunk_steps=2, action_dim=3)


def same(one: OpenVLA, other: OpenVLA) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "checkpoint", tiny(0))


def test_a_projector_inside_the_model_is_written_inside_again(folder: Path, tmp_path: Path) -> None:
    """SimpleVLA-RL's layout comes back whole; a projector left beside the model is an older one."""
    inside = {f"proprio_projector.{name}": tensor + 1 for name, tensor in torch.load(folder / SIDE).items()}
    original = load_file(folder / WEIGHTS) | inside
    save_file(original, folder / WEIGHTS)
    model, out = load(folder), tmp_path / "out"
    assert model.proprio is not None
    assert torch.equal(model.proprio.fc1.weight, inside["proprio_projector.fc1.weight"])
    save_openvla(model, out)
    saved = load_file(out / WEIGHTS)
    assert saved.keys() == original.keys() and all(torch.equal(saved[name], original[name]) for name in saved)
    assert not list(out.glob("*.pt"))
    assert same(load(out), model)


def test_what_a_folder_held_before_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards with an index and heads of a later step would else be read in place of what was written last."""
    folder, new = tmp_path / "checkpoint", tiny(1)
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 10**6)
    save_openvla(tiny(0), folder)
    (folder / SIDE).rename(folder / "proprio_projector--50000_checkpoint.pt")
    torch.save({}, folder / "action_head--50000_checkpoint.pt")
    assert (folder / INDEX).is_file()
    monkeypatch.undo()
    save_openvla(new, folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted([CONFIG, WEIGHTS, SIDE])
    assert same(load(folder), new)
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 10**6)
    save_openvla(tiny(2), folder)
    assert (folder / INDEX).is_file() and not (folder / WEIGHTS).is_file()
    assert same(load(folder), tiny(2))


def test_a_checkpoint_is_saved_over_itself(folder: Path) -> None:
    """Its tensors are mapped from the very files that are written."""
    model = load(folder)
    with torch.no_grad():
        model.projector.fc1.weight.add_(1)
    save_openvla(model, folder)
    assert same(load(folder), model)
    assert not same(model, tiny(0))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def config_without_sizes(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_sizes": [56]}))


@pytest.mark.parametrize(
    ("name", "damage", "complaint"),
    [
        (WEIGHTS, cut, r"model.safetensors \(\d+ bytes\) cannot be read: .*; copy it again"),
        (WEIGHTS, pointer, r"model.safetensors \(\d+ bytes\) cannot be read: .*git lfs pull"),
        (SIDE, cut, r"proprio_projector--0_checkpoint.pt \(\d+ bytes\) cannot be read"),
        (
            SIDE,
            lambda path: torch.save({"x": torch.zeros(2)}, path),
            "its proprio_projector has no fc1.weight",
        ),
        (INDEX, lambda path: path.write_text("{}"), "index.json has no weight_map"),
        (INDEX, lambda path: path.write_text("<html>"), "index.json is no JSON: "),
        (CONFIG, lambda path: path.write_text("{"), "config.json is no JSON: "),
        (CONFIG, lambda path: path.write_text("[]"), "config.json holds a list, not an object"),
        (CONFIG, config_without_sizes, r"image_sizes \[56\]; one side \[px\] for each of the two backbones"),
        (
            "preprocessor_config.json",
            lambda path: path.write_text("{"),
            "preprocessor_config.json is no JSON: ",
        ),
        ("vision_backbone--9_checkpoint.pt", pointer, "its vision backbone has FiLM, which is not supported"),
    ],
)
def test_a_damaged_file_is_one_line(
    folder: Path, name: str, damage: Callable[[Path], object], complaint: str
) -> None:
    damage(folder / name)
    with pytest.raises(RehearsalError, match=complaint) as raised:
        load(folder)
    assert "\n" not in str(raised.value)
