"""Batches, several pictures, autoregressive decoding, adapters, checkpoints and their errors, at random weights."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rehearsal.errors import RehearsalError
from training.policies.model_training import LoraOptions
from training.policies.openvla import checkpoint
from training.policies.openvla.autoregressive import (
    action_words,
    decode_ids,
    most_likely,
    most_likely_word,
    sampled,
    score_ids,
)
from training.policies.openvla.checkpoint import load_openvla_model, save_openvla
from training.policies.openvla.config import EMPTY_ID, PAD_ID
from training.policies.openvla.lora import add_lora, merged
from training.policies.openvla.model import OpenVLA
from training.policies.openvla.tiny import make_tiny, tiny_sizes

LENGTHS = (9, 14, 11)


def prompts(seed: int = 0) -> Tensor:
    """Three prompts of different lengths, int64 (3, 14)."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.full((3, max(LENGTHS)), PAD_ID)
    for row, length in enumerate(LENGTHS):
        text[row, :length] = torch.randint(3, 31000, (length,), generator=generator)
        text[row, 0], text[row, length - 1] = 1, EMPTY_ID
    return text


def look(cameras: int = 1, state_dim: int = 5, rows: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "images": torch.randint(0, 256, (rows, cameras, 56, 56, 3), generator=generator).to(torch.uint8),
        "state": torch.randn(rows, state_dim, generator=generator),
        "text": prompts()[:rows],
    }


@pytest.fixture(scope="module")
def model() -> OpenVLA:
    return make_tiny(tiny_sizes(), 0, chunk_steps=4, action_dim=3, state_dim=5, l1_head=True)


@pytest.fixture(scope="module")
def causal() -> OpenVLA:
    model = make_tiny(tiny_sizes(), 0, chunk_steps=1, action_dim=7)
    model.attention = "causal"
    return model


@pytest.mark.parametrize("cameras", [1, 3])
def test_a_padded_batch_gives_what_each_row_gives_alone(model: OpenVLA, cameras: int) -> None:
    batch = look(cameras)
    with torch.no_grad():
        whole = model(**batch)
        assert whole.shape == (3, 4, 3, 256) and float(whole.std()) > 0.1
        for row, length in enumerate(LENGTHS):
            alone = {name: tensor[row : row + 1] for name, tensor in batch.items()}
            alone["text"] = alone["text"][:, :length]
            assert torch.allclose(model(**alone)[0], whole[row], atol=1e-5)


def test_pictures_state_and_words_all_matter(model: OpenVLA) -> None:
    batch = look(2)
    with torch.no_grad():
        before = model(**batch)
        for name, changed in (
            ("images", batch["images"].flip(1)),
            ("state", -batch["state"]),
            ("text", torch.where(batch["text"] == 1, 5, batch["text"])),
        ):
            assert float((model(**batch | {name: changed}) - before).abs().max()) > 1e-3, name


def test_pixels_are_normalised_for_either_backbone(model: OpenVLA) -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).repeat_interleave(56 * 28 * 3).view(1, 1, 56, 56, 3)
    values = model.pixel_values(images)
    assert values.shape == (1, 6, 56, 56)
    expected = [(0 - 0.484375) / 0.228515625, (0 - 0.455078125) / 0.2236328125, (0 - 0.40625) / 0.224609375, -1, -1, -1]
    assert values[0, :, 0, 0].tolist() == pytest.approx(expected)
    assert values[0, 3:, -1, -1].tolist() == pytest.approx([1, 1, 1])


def test_decoding_one_by_one_equals_scoring_at_once(causal: OpenVLA) -> None:
    batch = look()
    given = causal.pixel_values(batch["images"]), batch["state"], batch["text"]
    with torch.no_grad():
        ids, logits = decode_ids(causal, *given, most_likely)
        scored = score_ids(causal, *given, ids)
        uniform = torch.rand(3, 7, generator=torch.Generator().manual_seed(2))
        drawn, _ = decode_ids(causal, *given, sampled(1.6, uniform))
    assert torch.allclose(scored, logits, atol=2e-4)
    assert torch.equal(action_words(scored).argmax(-1), 31999 - ids)
    assert ((drawn >= 31744) & (drawn < 32000)).all() and not torch.equal(drawn, ids)


def test_decoding_is_what_transformers_generates(causal: OpenVLA) -> None:
    """Its own greedy search over the whole vocabulary, one row at a time, without padding."""
    batch = look()
    pixels = causal.pixel_values(batch["images"])
    with torch.no_grad():
        found, _ = decode_ids(causal, pixels, batch["state"], batch["text"], most_likely_word)
        for row, length in enumerate(LENGTHS):
            words = batch["text"][row : row + 1, :length]
            context, _ = causal.context(pixels[row : row + 1], batch["state"][:1], words)
            generated = causal.language_model.generate(
                inputs_embeds=context, attention_mask=torch.ones(context.shape[:2]), max_new_tokens=7, do_sample=False,
                pad_token_id=0, eos_token_id=None,
            )  # fmt: skip
            assert torch.equal(generated[0, -7:], found[row])


def test_merged_adapters_are_the_adapters(model: OpenVLA) -> None:
    tuned = make_tiny(tiny_sizes(), 0, chunk_steps=4, action_dim=3, state_dim=5, l1_head=True)
    add_lora(tuned, LoraOptions(rank=4))
    names = [name for name, weights in tuned.named_parameters() if weights.requires_grad]
    assert all("lora_" in name or name.startswith(("proprio.", "l1_head.")) for name in names)
    batch = look()
    with torch.no_grad():
        assert torch.allclose(tuned(**batch), model(**batch), atol=1e-5), "new adapters change nothing"
        for name, weights in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weights, std=0.1, generator=torch.Generator().manual_seed(3))
        whole = merged(tuned)
        assert float((tuned(**batch) - model(**batch)).abs().max()) > 0.1
        assert torch.allclose(whole(**batch), tuned(**batch), atol=1e-4)
    assert whole.state_dict().keys() == model.state_dict().keys()
    assert merged(model) is model


@pytest.mark.parametrize("shard_bytes", [5 * 10**9, 10**6])
def test_a_checkpoint_comes_back_byte_for_byte(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_bytes: int
) -> None:
    """In one file and in shards with an index: keys, shapes, types, values; and its side file."""
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", shard_bytes)
    for robot, (steps, dim) in {"libero": (8, 7), "aloha": (25, 14)}.items():
        source, out = checkpoints[robot], tmp_path / robot
        save_openvla(load_openvla_model(source, chunk_steps=steps, action_dim=dim), out, beside=source)
        files = sorted(out.glob("*.safetensors"))
        assert len(files) == (1 if shard_bytes > 10**9 else 4)
        saved = {name: tensor for file in files for name, tensor in load_file(file).items()}
        original = load_file(source / "model.safetensors")
        assert saved.keys() == original.keys()
        assert all(torch.equal(saved[k], original[k]) and saved[k].dtype == original[k].dtype for k in saved)
        assert json.loads((out / "config.json").read_text()) == json.loads((source / "config.json").read_text())
        again = load_openvla_model(out, chunk_steps=steps, action_dim=dim)
        before = load_openvla_model(source, chunk_steps=steps, action_dim=dim).state_dict()
        assert all(torch.equal(tensor, before[name]) for name, tensor in again.state_dict().items())


def test_simplevlas_projector_inside_the_model_is_read(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    source = checkpoints["aloha"]
    side = next(source.glob("proprio_projector--*"))
    inside = {f"proprio_projector.{k.removeprefix('module.')}": v for k, v in torch.load(side).items()}
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    save_file(load_file(source / "model.safetensors") | inside, tmp_path / "model.safetensors")
    beside, within = (load_openvla_model(f, chunk_steps=25, action_dim=14).proprio for f in (source, tmp_path))
    assert beside is not None and within is not None
    assert all(torch.equal(a, b) for a, b in zip(beside.parameters(), within.parameters(), strict=True))


def load(folder: Path, action_dim: int = 7) -> OpenVLA:
    return load_openvla_model(folder, chunk_steps=8, action_dim=action_dim)


def test_what_is_no_openvla_is_one_clear_line(edited: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(RehearsalError, match=r"no OpenVLA checkpoint in .*: config.json is missing"):
        load(tmp_path)
    with pytest.raises(RehearsalError, match="unknown model_type of .*'llava'; valid: openvla"):
        load(edited(model_type="llava"))
    with pytest.raises(RehearsalError, match="unknown vision backbone in .*'vit_tiny'; valid: vit_large_patch14"):
        load(edited(timm_model_ids=["vit_tiny", "vit_so400m_patch14_siglip_224"]))
    with pytest.raises(RehearsalError, match="only the fused pair"):
        load(edited(use_fused_vision_backbone=False))


def test_a_missing_shard_is_named(edited: Callable[..., Path]) -> None:
    folder = edited()
    places = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    with pytest.raises(RehearsalError, match=r"shard model-00002-of-00002.safetensors is missing \(1 of 2\)"):
        load(folder)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(RehearsalError, match="holds no weights: neither model.safetensors nor"):
        load(folder)


def test_tensors_that_do_not_fit_are_named(edited: Callable[..., Path], checkpoints: dict[str, Path]) -> None:
    folder = edited()
    tensors = load_file(folder / "model.safetensors")
    norm = "language_model.model.norm.weight"
    for changed, complaint in (
        ({k: v for k, v in tensors.items() if k != norm}, f"{norm} is missing"),
        (tensors | {norm: torch.zeros(7)}, r"norm.weight is \(7,\); its config.json .* want \(32,\)"),
        (tensors | {"language_model.extra": torch.zeros(1)}, "unknown tensor language_model.extra"),
        ({k: v for k, v in tensors.items() if "blocks.0" not in k}, "not OpenVLA's layout"),
    ):
        save_file(changed, folder / "model.safetensors")
        with pytest.raises(RehearsalError, match=complaint):
            load(folder)
    with pytest.raises(RehearsalError, match="14 actions a step want"):
        load(checkpoints["libero"], action_dim=14)


def test_gradients_are_the_same_when_activations_are_computed_again() -> None:
    def gradient(again: bool) -> np.ndarray:
        model = make_tiny(tiny_sizes(), 0, chunk_steps=4, action_dim=3).train()
        model.freeze_vision()
        if again:
            model.checkpoint_gradients()
        model(**look(state_dim=0)).logsumexp(-1).mean().backward()
        assert all(weights.grad is None for weights in model.vision.parameters())
        weights = model.language_model.model.layers[0].mlp.up_proj.weight
        assert weights.grad is not None
        return weights.grad.numpy()

    plain, again = gradient(False), gradient(True)
    assert np.abs(plain).max() > 0 and plain == pytest.approx(again, abs=1e-7)
