"""Pictures, prompts, statistics and tokens around OpenVLA, against the reference's numbers and worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rehearsal.errors import RehearsalError
from rehearsal.simulation import ObservationBatch
from training.imitation.demonstration_set import DemonstrationSet
from training.policies.openvla.image_pipeline import centre_crop, jpeg_round_trip, lanczos, prepare
from training.policies.openvla.prompt import make_tokenizer, prompt, prompt_ids, read_tokenizer
from training.policies.openvla.statistics import (
    StateBounds,
    action_codec,
    dataset_statistics,
    read_statistics,
    state_bounds,
    write_statistics,
)
from training.policies.openvla.transform import OpenVLATransform
from training.simulators.libero.actions import ACTION_SPEC


def same(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns the share of equal values; none may be off by more than one."""
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    return float((difference == 0).mean())


def test_each_stage_of_a_picture_is_the_references(reference: dict[str, np.ndarray]) -> None:
    """Wanted: equal on 99.9 % of values."""
    decoded = jpeg_round_trip(reference["picture.raw"][::-1, ::-1])
    assert np.array_equal(decoded[::4], reference["picture.jpeg"])
    resized = lanczos(decoded[None], 224)
    assert same(resized[0, ::4], reference["picture.resized"]) >= 0.999
    assert same(centre_crop(resized)[0, ::4], reference["picture.cropped"]) >= 0.999


def test_whole_pictures_are_the_references(reference: dict[str, np.ndarray]) -> None:
    # The reference turns the stock picture, which is upside down, by 180 degrees: the upright one, mirrored.
    turned = prepare(reference["picture.raw"][None, ::-1], 224, mirror=True, resize_first=False)
    assert same(turned[0, ::4], reference["picture.cropped"]) >= 0.999
    wide = prepare(reference["rectangle.raw"][None], 224, mirror=False, resize_first=False)
    assert same(wide[0, ::4], reference["rectangle.cropped"]) >= 0.999


def test_aloha_pictures_are_squashed_whole_by_pillow(reference: dict[str, np.ndarray], tmp_path: Path) -> None:
    """The public evaluation resizes the whole 640x480 picture to 256x256, bicubic, before all else."""
    make_tokenizer(tmp_path, WORDS)
    wide = np.asarray(Image.fromarray(reference["rectangle.raw"]).resize((640, 480)))
    squashed = np.asarray(Image.fromarray(wide).resize((256, 256), Image.Resampling.BICUBIC))
    expected = centre_crop(lanczos(jpeg_round_trip(squashed)[None], 224))
    batch = ObservationBatch(images={"head": wide[None]}, state=np.zeros((1, 1), np.float32), instructions=WORDS)
    for squash in (True, False):
        transform = OpenVLATransform(
            cameras=("head",), side_px=256, input_px=224, mirror=False, resize_first=True, squash=squash,
            state=None, state_values=1, prompt_length=24,
        ).at(tmp_path)  # fmt: skip
        found = transform(batch)
        assert np.array_equal(found["images"][:, 0], expected) == squash
        assert found["state"].shape == (1, 0)


def test_aloha_pictures_are_made_square_first() -> None:
    flat = np.full((1, 480, 640, 3), 128, np.uint8)
    assert np.unique(prepare(flat, 56, mirror=False, resize_first=True)).tolist() == [128]


WORDS = ["pick up the red mug"]


def test_a_prompt_begins_with_bos_and_ends_with_the_empty_token(tmp_path: Path) -> None:
    make_tokenizer(tmp_path, WORDS)
    tokenizer = read_tokenizer(tmp_path)
    ids = prompt_ids(tokenizer, ["Pick up the RED mug", "pick up"], 24)
    kept = [row[row != 32000] for row in ids]
    assert all(row[0] == 1 and row[-1] == 29871 for row in kept)
    assert len(kept[0]) - len(kept[1]) == 3 and (ids[1, len(kept[1]) :] == 32000).all()
    assert np.array_equal(ids[0], prompt_ids(tokenizer, WORDS, 24)[0]), "the instruction is put in lower case"
    with pytest.raises(RehearsalError, match="has 19 tokens, prompt_length is 8: raise prompt_length"):
        prompt_ids(tokenizer, WORDS, 8)
    with pytest.raises(RehearsalError, match=r"has no tokenizer.json: copy it from the checkpoint"):
        read_tokenizer(tmp_path / "elsewhere")


LIBERO = {
    "action": {
        "q01": [-0.5] * 6 + [0.0], "q99": [0.5] * 6 + [1.0], "min": [-1.0] * 6 + [0.0], "max": [1.0] * 6 + [1.0],
        "mask": [True] * 6 + [False],
    },
    "proprio": {"q01": [0.0] * 8, "q99": [2.0] * 8, "min": [-1.0] * 8, "max": [3.0] * 8},
}  # fmt: skip


def test_tokens_are_published_ids_and_actions_their_centres() -> None:
    """id = 32000 - digitize(x, 256 edges); bin = 31999 - id; the centre of 255 intervals of [-0.5, 0.5 + 1e-8]."""
    codec = action_codec(LIBERO, ACTION_SPEC, 8, bounds="q99")
    actions = np.random.default_rng(0).uniform(-0.6, 0.6, (40, 8, 7)).astype(np.float32)
    actions[..., 6] = np.where(actions[..., 6] > 0, 1, -1)
    found = codec.encode(actions, np.zeros((40, 8)))
    normalised = np.clip(2 * (actions[..., :6] + 0.5) / 1.0 - 1, -1, 1)
    expected = np.digitize(normalised, np.linspace(-1, 1, 256)) - 1
    assert (found[..., :6] == expected).mean() > 0.999
    centres = (np.linspace(-1, 1, 256)[:-1] + np.linspace(-1, 1, 256)[1:]) / 2
    played = codec.decode(found, np.zeros((40, 8)))
    assert played[..., :6] == pytest.approx(0.5 * centres[np.clip(found[..., :6], 0, 254)], abs=1e-6)
    assert np.array_equal(played[..., 6], actions[..., 6])


def test_the_last_token_decodes_like_the_one_before() -> None:
    codec = action_codec(LIBERO, ACTION_SPEC, 1, bounds="q99")
    ends = codec.decode(np.array([[[255] * 7], [[254] * 7], [[0] * 7]]), np.zeros((3, 8)))
    assert np.array_equal(ends[0], ends[1]) and ends[0, 0, 0] > 0.49
    assert ends[0, 0, 6] == -1 and ends[2, 0, 6] == 1, "an open gripper is -1 in LIBERO, a closed one 1"


@given(st.lists(st.integers(0, 254), min_size=7, max_size=7))
def test_tokens_survive_decoding_and_encoding(tokens: list[int]) -> None:
    codec = action_codec(LIBERO, ACTION_SPEC, 1, bounds="q99")
    given_tokens = np.array(tokens).reshape(1, 1, 7)
    again = codec.encode(codec.decode(given_tokens, np.zeros((1, 8))), np.zeros((1, 8)))
    assert np.array_equal(again[..., :6], given_tokens[..., :6])


def test_states_are_clipped_to_their_bounds() -> None:
    bounds = state_bounds(LIBERO, 8, bounds="q99")
    found = bounds.normalise(np.array([0.0, 1, 2, 5, -5, 0.5, 1.5, 2]))
    assert found == pytest.approx([-1, 0, 1, 1, -1, -0.5, 0.5, 1], abs=1e-6)


def test_statistics_of_demonstrations_are_read_as_published_ones(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    actions = rng.uniform(-0.3, 0.7, (50, 8, 7)).astype(np.float32)
    actions[..., 6] = np.where(actions[..., 6] > 0.2, 1, -1)
    demonstrations = DemonstrationSet(
        images=np.zeros((50, 1, 8, 8, 3), np.uint8), state=rng.normal(size=(50, 8)).astype(np.float32),
        actions=actions, instructions=["x"] * 50, episode=np.repeat(np.arange(5), 10),
    )  # fmt: skip
    write_statistics(tmp_path, dataset_statistics(demonstrations, ACTION_SPEC, "mine"))
    name, found = read_statistics(tmp_path, None)
    assert name == "mine" and found["num_trajectories"] == 5 and found["action"]["mask"] == [True] * 6 + [False]
    assert found["action"]["q99"][6] == 1 and found["action"]["min"][6] == 0
    assert found["action"]["q01"][0] == pytest.approx(np.quantile(actions[..., 0], 0.01))
    codec = action_codec(found, ACTION_SPEC, 8, bounds="extremes")
    again = codec.decode(codec.encode(actions, demonstrations.state), demonstrations.state)
    assert np.abs(again - actions)[..., :6].max() < 1 / 255
    assert np.array_equal(again[..., 6], actions[..., 6])


def test_statistics_of_another_robot_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(RehearsalError, match="has no dataset_statistics.json"):
        read_statistics(tmp_path, None)
    write_statistics(tmp_path, {"libero": LIBERO, "bridge": LIBERO})
    with pytest.raises(RehearsalError, match="statistics of several datasets; name one of: libero, bridge"):
        read_statistics(tmp_path, None)
    with pytest.raises(RehearsalError, match="unknown dataset in .*'aloha'; valid: libero, bridge"):
        read_statistics(tmp_path, "aloha")
    other = json.loads(json.dumps(LIBERO))
    other["action"]["q01"] = other["action"]["q99"] = [0.0] * 14
    with pytest.raises(RehearsalError, match=r"of 14 action values, this robot has 7 \(x, y, z"):
        action_codec(other, ACTION_SPEC, 8, bounds="q99")
    with pytest.raises(RehearsalError, match="of 8 state values, this robot's state has 14"):
        state_bounds(LIBERO, 14, bounds="q99")


def test_the_transform_gives_what_the_model_takes(tmp_path: Path) -> None:
    make_tokenizer(tmp_path, WORDS)
    transform = OpenVLATransform(
        cameras=("wrist", "head"), side_px=64, input_px=56, mirror=False, resize_first=False, squash=False,
        state=StateBounds(lower=(0.0,), upper=(1.0,)), state_values=1, prompt_length=24,
    ).at(tmp_path)  # fmt: skip
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (2, 48, 64, 3), dtype=np.uint8) for name in ("head", "wrist")}
    batch = ObservationBatch(images=images, state=np.array([[0.0], [0.75]], np.float32), instructions=WORDS * 2)
    found = transform(batch)
    assert found["images"].shape == (2, 2, 56, 56, 3) and found["images"].dtype == np.uint8
    assert found["state"].ravel().tolist() == pytest.approx([-1, 0.5]) and found["text"].shape == (2, 24)
    second = {name: pictures[1:] for name, pictures in images.items()}
    alone = transform(ObservationBatch(images=second, state=batch.state[1:], instructions=WORDS))
    assert all(np.array_equal(alone[name][0], found[name][1]) for name in found)
    with pytest.raises(RehearsalError, match="looks through camera 'wrist'; got: head"):
        transform(ObservationBatch(images={"head": images["head"]}, state=batch.state, instructions=WORDS * 2))
    with pytest.raises(RehearsalError, match="takes a state of 1 values, got 2"):
        transform(ObservationBatch(images=images, state=np.zeros((2, 2), np.float32), instructions=WORDS * 2))


def test_sentencepieces_own_file_is_read_where_there_is_no_other(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(prompt(word) for word in ("pick up the red mug", "push the plate", "open a drawer")))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(tmp_path / "tokenizer"), vocab_size=64, model_type="bpe",
        unk_id=0, bos_id=1, eos_id=2, minloglevel=2,
    )  # fmt: skip
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    expected = [1, *pieces.encode(prompt("Push the RED mug")), 29871]
    found = prompt_ids(read_tokenizer(tmp_path), ["Push the RED mug"], 64)[0]
    assert found.tolist() == expected + [32000] * (64 - len(expected))
    assert pieces.decode(expected[1:-1]) == "In: What action should the robot take to push the red mug? Out:"


def test_a_damaged_tokeniser_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(RehearsalError, match=r"tokenizer.json is no tokeniser: .*; copy it again"):
        read_tokenizer(tmp_path)


def test_only_a_gripper_may_be_left_as_it_is() -> None:
    other = json.loads(json.dumps(LIBERO))
    other["action"]["mask"][2] = False
    with pytest.raises(RehearsalError, match="the statistics leave z as it is, which a gripper alone can be"):
        action_codec(other, ACTION_SPEC, 8, bounds="q99")
