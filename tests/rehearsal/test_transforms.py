"""The input transform: area averages by hand, hashes that must never change, and refusals."""

import numpy as np
import pytest

from rehearsal.errors import RehearsalError
from rehearsal.messages import Observation
from rehearsal.transforms import InputTransform, batch, hashed_words, square

EXPECTED_IDS = [506, 438, 341, 485, 32, 0]


def transform(**change: object) -> InputTransform:
    fields = {
        "cameras": ("wrist", "head"), "side_px": 4, "state_mean": (1.0, 2.0), "state_std": (2.0, 0.5),
        "text_buckets": 512, "text_length": 6,
    }
    return InputTransform(**(fields | change))  # type: ignore[arg-type]


def test_area_average_by_hand() -> None:
    # 3 pixels to 2: each target covers one source pixel and half of the middle one.
    row = np.array([0, 90, 240], np.uint8)
    picture = np.broadcast_to(row[None, None, :, None], (1, 3, 3, 3))
    left, right = 30, 190  # (0 + 90 / 2) / 1.5 and (90 / 2 + 240) / 1.5
    np.testing.assert_array_equal(square(picture, 2)[0, :, :, 0], [[left, right], [left, right]])


def test_the_centred_square_is_taken() -> None:
    picture = np.zeros((1, 2, 6, 3), np.uint8)
    picture[0, :, 2:4] = [10, 20, 30]
    np.testing.assert_array_equal(square(picture, 2), np.full((1, 2, 2, 3), [10, 20, 30]))
    np.testing.assert_array_equal(square(picture.swapaxes(1, 2), 1), [[[[10, 20, 30]]]])


def test_a_picture_of_the_right_size_is_untouched_and_means_are_kept() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), dtype=np.uint8)
    np.testing.assert_array_equal(square(picture, 12), picture)
    blocks = picture.reshape(2, 4, 3, 4, 3, 3).astype(float).mean(axis=(2, 4))
    np.testing.assert_allclose(square(picture, 4), blocks, atol=0.501)


def test_white_stays_white_at_every_size() -> None:
    for source in range(5, 40):
        white = np.full((1, source, source, 3), 255, np.uint8)
        assert square(white, 7).min() == 255


def test_hashes_are_stable() -> None:
    # CRC-32 of "ring", "the", "bell", "ring the", "the bell" modulo 511, plus 1: exported policies depend on them.
    assert hashed_words("Ring the bell!", 512, 6).tolist() == EXPECTED_IDS
    assert hashed_words("ring  THE, bell", 512, 6).tolist() == EXPECTED_IDS
    assert hashed_words("Ring the bell!", 512, 2).tolist() == EXPECTED_IDS[:2]
    assert hashed_words("", 512, 3).tolist() == [0, 0, 0]


def test_ids_stay_within_the_buckets() -> None:
    ids = hashed_words(" ".join(map(str, range(500))), 16, 900)
    assert ids.min() >= 1 and ids.max() <= 15


def test_the_whole_input_of_two_observations() -> None:
    observations = [
        Observation(
            images={"head": np.full((8, 8, 3), value, np.uint8), "wrist": np.full((4, 6, 3), value + 1, np.uint8)},
            state=np.array([3.0, 2.5]),
            instruction="ring the bell",
            captured_at=0.0,
        )
        for value in (10, 20)
    ]
    inputs = transform()(batch(observations))
    assert inputs["images"].shape == (2, 2, 4, 4, 3) and inputs["images"].dtype == np.uint8
    assert inputs["images"][:, :, 0, 0, 0].tolist() == [[11, 10], [21, 20]], "the model's order: wrist, head"
    np.testing.assert_array_equal(inputs["state"], np.float32([[1.0, 1.0], [1.0, 1.0]]))
    assert inputs["text"].tolist() == [EXPECTED_IDS] * 2


def test_missing_cameras_and_other_states_are_refused() -> None:
    observation = Observation(
        images={"head": np.zeros((4, 4, 3), np.uint8)}, state=np.zeros(3), instruction="", captured_at=0.0
    )
    with pytest.raises(RehearsalError, match="looks through camera 'wrist'; got: head"):
        transform().images(batch([observation]))
    with pytest.raises(RehearsalError, match="takes a state of 2 values, got 3"):
        transform().state(np.zeros((1, 3)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state_std": (1.0,)}, "one entry a state value"),
        ({"state_std": (1.0, 0.0)}, "state_std must be positive"),
        ({"text_buckets": 1}, "text_buckets 1"),
    ],
)
def test_impossible_transforms_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transform(**change)
