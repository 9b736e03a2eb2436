import json
import shutil
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from rehearsal.errors import RehearsalError
from training.policies.rdt.checkpoint import load_rdt, save_rdt
from training.policies.rdt.config import RDTConfig, TransformerConfig


def test_a_checkpoint_is_written_as_it_was_read(reference_folder: Path, tmp_path: Path) -> None:
    rdt = load_rdt(reference_folder)
    assert rdt.dtype == torch.bfloat16
    save_rdt(rdt, tmp_path)
    before, after = (load_file(folder / "model.safetensors") for folder in (reference_folder, tmp_path))
    assert before.keys() == after.keys()
    for name, weight in before.items():
        assert weight.dtype == after[name].dtype and torch.equal(weight, after[name]), name
    assert load_rdt(tmp_path).config == rdt.config
    assert load_rdt(reference_folder, torch.float32).dtype == torch.float32


def test_a_pickled_checkpoint_is_read_without_running_it(reference_folder: Path, tmp_path: Path) -> None:
    shutil.copy(reference_folder / "config.json", tmp_path)
    weights = load_file(reference_folder / "model.safetensors")
    torch.save(weights, tmp_path / "pytorch_model.bin")
    for name, weight in load_rdt(tmp_path).state_dict().items():
        assert torch.equal(weight, weights[name]), name
    torch.save({"weights": Path("code")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(RehearsalError, match=r"pytorch_model.bin cannot be read: Weights only load failed"):
        load_rdt(tmp_path)


def test_missing_and_foreign_files_are_one_clear_line(reference_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RehearsalError, match=r"no RDT checkpoint in .*: config.json is missing"):
        load_rdt(tmp_path)
    shutil.copy(reference_folder / "config.json", tmp_path)
    with pytest.raises(RehearsalError, match=r"must hold model.safetensors or pytorch_model.bin"):
        load_rdt(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(RehearsalError, match=r"model.safetensors cannot be read"):
        load_rdt(tmp_path)
    weights = load_file(reference_folder / "model.safetensors")
    save_file({**weights, "lang_adaptor.0.bias": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(RehearsalError, match=r"lang_adaptor.0.bias is of shape \(3,\) and should be of shape \(32,\)"):
        load_rdt(tmp_path)
    del weights["model.x_pos_embed"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(RehearsalError, match=r"model.x_pos_embed is absent and should be of shape \(1, 7, 32\)"):
        load_rdt(tmp_path)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"pred_horizon": 0}, "pred_horizon"),
        ({"state_token_dim": 5}, "action_dim 12 and state_token_dim 5 must be equal"),
        ({"config": {"lang_adaptor": "mlp0x_gelu"}}, "unknown adaptor 'mlp0x_gelu'; valid: linear"),
        ({"config": {"rdt": {"hidden_size": 30, "num_heads": 4}}}, "hidden_size 30 must be a multiple of 4 x 4 heads"),
    ],
)
def test_a_config_that_is_none_is_refused(
    changes: dict[str, object], complaint: str, reference_folder: Path, tmp_path: Path
) -> None:
    config = json.loads((reference_folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(RehearsalError, match=complaint):
        load_rdt(tmp_path)


def test_the_defaults_are_those_of_rdt_1b() -> None:
    config = RDTConfig()
    assert config.config.rdt == TransformerConfig(hidden_size=2048, depth=28, num_heads=32)
    assert config.img_cond_len == 2 * 3 * 27 * 27
    assert msgspec.json.decode(msgspec.json.encode(config), type=RDTConfig) == config
