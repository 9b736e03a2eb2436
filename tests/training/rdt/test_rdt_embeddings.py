import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, SiglipModel, T5EncoderModel

from rehearsal.errors import RehearsalError
from rehearsal.simulation import ObservationBatch
from training.policies.rdt.checkpoint import load_rdt
from training.policies.rdt.embeddings import (
    EncoderConditions,
    EncoderOptions,
    SiglipImages,
    StoredLanguage,
    T5Language,
    pad_to_square,
)


def options(**changes: object) -> EncoderOptions:
    given = {"external": "head", "right": "wrist", "left": None, "language": "t5", "vision": "siglip", "side_px": 32}
    return EncoderOptions(**{**given, **changes})


def conditions(folder: Path, **changes: object) -> EncoderConditions:
    return EncoderConditions(options(**changes), load_rdt(folder / "rdt").config, folder, torch.float32)


def look(*instructions: str) -> ObservationBatch:
    rng = np.random.default_rng(0)
    count = len(instructions)
    images = {name: rng.integers(0, 256, (count, 30, 40, 3), dtype=np.uint8) for name in ("head", "wrist")}
    return ObservationBatch(images=images, state=np.zeros((count, 7), np.float32), instructions=list(instructions))


def test_a_picture_is_padded_above_and_below_with_the_background() -> None:
    picture = np.full((2, 5, 3), 9, dtype=np.uint8)
    square = np.asarray(pad_to_square(picture, (1, 2, 3)))
    assert square.shape == (5, 5, 3)
    assert (square[1:3] == 9).all() and (square[[0, 3, 4]] == [1, 2, 3]).all()
    assert np.array_equal(np.asarray(pad_to_square(picture.transpose(1, 0, 2), (1, 2, 3))), square.transpose(1, 0, 2))


def test_picture_tokens_are_siglips_of_the_padded_scaled_picture(encoders: Path) -> None:
    picture = look("x").images["head"][0]
    vision = SiglipImages(encoders / "siglip", torch.float32)
    assert vision.background == (127, 127, 127) and vision.patches == 4
    scaled = np.asarray(pad_to_square(picture, (127,) * 3).resize((28, 28), Image.Resampling.BICUBIC))
    pixels = torch.tensor(scaled).float().permute(2, 0, 1)[None] / 127.5 - 1
    whole = SiglipModel.from_pretrained(encoders / "siglip", local_files_only=True)
    with torch.no_grad():
        wanted = whole.vision_model(pixels).last_hidden_state
    torch.testing.assert_close(vision.tokens([picture]), wanted, atol=1e-5, rtol=0)


def test_image_tokens_are_external_right_left_at_two_times(encoders: Path) -> None:
    batch = look("pick the bottle", "the bottle")
    _, _, image = conditions(encoders)(batch)
    vision = SiglipImages(encoders / "siglip", torch.float32)
    assert image.shape == (2, 24, 16)
    places = image.unflatten(1, (2, 3, 4))
    torch.testing.assert_close(places[:, 0], places[:, 1])
    torch.testing.assert_close(places[:, 0, 0], vision.tokens(list(batch.images["head"])))
    torch.testing.assert_close(places[:, 0, 1], vision.tokens(list(batch.images["wrist"])))
    blank = vision.tokens([np.full((28, 28, 3), 127, dtype=np.uint8)])
    torch.testing.assert_close(places[:, 0, 2], blank.expand(2, -1, -1))


def test_language_tokens_are_t5s_of_each_instruction_alone(encoders: Path) -> None:
    language, mask, _ = conditions(encoders)(look("pick the bottle", "bottle", "pick the the bottle the the pick"))
    assert mask.sum(1).tolist() == [4, 2, 5], "words and an end mark; cut at the model's five"
    tokenizer = AutoTokenizer.from_pretrained(encoders / "t5", local_files_only=True)
    model = T5EncoderModel.from_pretrained(encoders / "t5", local_files_only=True)
    with torch.no_grad():
        wanted = model(tokenizer("bottle", return_tensors="pt")["input_ids"]).last_hidden_state[0]
    torch.testing.assert_close(language[1, :2], wanted)
    assert not language[1, 2:].any()


def test_stored_language_is_found_whatever_its_case(encoders: Path) -> None:
    stored = StoredLanguage(encoders / "language.safetensors")
    assert torch.equal(stored.tokens("pick the  bottle"), stored.tokens("Pick the bottle."))
    assert stored.tokens("push").shape == (2, 20)
    with pytest.raises(RehearsalError, match="stored embeddings: 'fold'; valid: pick the bottle, push"):
        stored.tokens("fold")
    upstream = StoredLanguage(encoders / "language.pt").tokens("Pick the bottle.")
    assert torch.equal(upstream, torch.load(encoders / "language.pt")["embeddings"][0])
    _, mask, _ = conditions(encoders, language="language.safetensors")(look("push", "pick the bottle"))
    assert mask.tolist() == [[True, True, False, False], [True] * 4]


def test_what_is_missing_is_one_clear_line(encoders: Path, tmp_path: Path) -> None:
    shutil.copytree(encoders / "t5", tmp_path / "t5")
    (tmp_path / "t5/tokenizer.json").unlink()
    with pytest.raises(RehearsalError, match="is no T5 folder: it lacks tokenizer.json or spiece.model"):
        T5Language(tmp_path / "t5", torch.float32)
    (tmp_path / "t5/model.safetensors").unlink()
    with pytest.raises(RehearsalError, match="is no T5 folder: it lacks model.safetensors or"):
        T5Language(tmp_path / "t5", torch.float32)
    with pytest.raises(RehearsalError, match="nowhere is no SigLIP folder: it lacks config.json"):
        conditions(encoders, vision="nowhere")
    with pytest.raises(RehearsalError, match="no language embeddings .*nowhere; give a .safetensors or .pt file"):
        conditions(encoders, language="nowhere")
    with pytest.raises(RehearsalError, match="looks through camera 'side'; got: head, wrist"):
        conditions(encoders, external="side")(look("bottle"))
    weights = load_file(encoders / "siglip/model.safetensors")
    shutil.copytree(encoders / "siglip", tmp_path / "siglip")
    del weights["vision_model.post_layernorm.bias"]
    save_file(weights, tmp_path / "siglip/model.safetensors", {"format": "pt"})
    with pytest.raises(RehearsalError, match="it lacks 1 weights such as .*post_layernorm.bias"):
        SiglipImages(tmp_path / "siglip", torch.float32)
    torch.save({"instruction": torch.zeros(3)}, tmp_path / "bad.pt")
    with pytest.raises(RehearsalError, match="must hold a tensor"):
        StoredLanguage(tmp_path / "bad.pt")


def test_encoders_of_another_size_are_refused(encoders: Path) -> None:
    config = load_rdt(encoders / "rdt").config
    with pytest.raises(RehearsalError, match="gives 4 tokens of 16 values a picture; the model takes 10 of 16 from 3"):
        EncoderConditions(options(), msgspec.structs.replace(config, img_cond_len=10), encoders, torch.float32)
    wide = msgspec.structs.replace(config, lang_token_dim=21)
    with pytest.raises(RehearsalError, match="language tokens have 20 values; the model takes 21"):
        EncoderConditions(options(), wide, encoders, torch.float32)(look("bottle"))
