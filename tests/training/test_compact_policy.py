import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from training.policies.compact import (
    CONTRAST_FLOOR,
    CompactPolicy,
    CompactPolicyConfig,
    position_grid,
    standardise,
)


def config(**changes: object) -> CompactPolicyConfig:
    small = {"cameras": 2, "side_px": 32, "state_dim": 3, "action_dim": 3, "bins": 32, "width": 32, "heads": 2}
    return CompactPolicyConfig(**{**small, **changes})


def inputs(frames: int = 5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "images": torch.randint(0, 256, (frames, 2, 32, 32, 3), dtype=torch.uint8, generator=generator),
        "state": torch.randn(frames, 3, generator=generator),
        "text": torch.randint(0, 512, (frames, 6), generator=generator),
    }


@pytest.mark.parametrize("head", ["ordinal", "categorical"])
def test_saved_policy_answers_the_same(head: str, tmp_path: Path) -> None:
    policy = CompactPolicy.new(config(head=head), seed=1)
    policy.save_pretrained(tmp_path)
    again = CompactPolicy.from_pretrained(tmp_path, local_files_only=True)
    with torch.no_grad():
        assert torch.equal(policy(**inputs()), again(**inputs()))
    assert again.config.head == head


def test_same_seed_same_weights_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (CompactPolicy.new(config(), seed) for seed in (3, 3, 4))
    assert torch.equal(torch.rand(3), expected)
    pairs = list(zip(first.state_dict().values(), second.state_dict().values(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.queries, other.queries)


def test_categorical_policy_begins_almost_uniform() -> None:
    with torch.no_grad():
        logits = CompactPolicy.new(config(head="categorical"), seed=0)(**inputs())
    assert logits.log_softmax(-1).abs().sub(math.log(32)).abs().max() < 0.5


def test_ordinal_policy_begins_in_the_middle_with_an_eighth_of_the_bins() -> None:
    with torch.no_grad():
        shares = CompactPolicy.new(config(modes=1), seed=0)(**inputs()).softmax(-1)
    bins = torch.arange(32.0)
    mean = shares @ bins
    std = (shares @ bins.square() - mean.square()).sqrt()
    assert (mean - 15.5).abs().max() < 4
    assert (std - 4).abs().max() < 1


def test_standardised_pictures_by_hand() -> None:
    """Contrasts 0.1, 0 and 0.2 of the channels: together sqrt((0.01 + 0 + 0.04) / 3) = 0.1291, and the floor 0.025."""
    picture = torch.tensor([[[[0.2, 0.4], [0.4, 0.2]], [[0.7, 0.7], [0.7, 0.7]], [[0.1, 0.5], [0.1, 0.5]]]])
    signs = torch.tensor([[[[-0.1, 0.1], [0.1, -0.1]], [[0.0, 0.0], [0.0, 0.0]], [[-0.2, 0.2], [-0.2, 0.2]]]])
    assert torch.allclose(standardise(picture), signs / 0.154099, atol=1e-5)


def test_brightness_and_contrast_leave_a_standardised_picture_up_to_the_floor() -> None:
    """An offset changes nothing. Contrast r times a: a (r + f) / (a r + f) with the floor f, so 1 without it."""
    picture = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = standardise(picture)
    assert torch.allclose(standardise(picture + torch.tensor([0.3, -0.1, 0.2]).view(3, 1, 1)), before, atol=1e-5)
    contrast = (picture - picture.mean((2, 3), keepdim=True)).square().mean((1, 2, 3), keepdim=True).sqrt()
    for factor in (0.5, 1.5):
        kept = factor * (contrast + CONTRAST_FLOOR) / (factor * contrast + CONTRAST_FLOOR)
        found = standardise(factor * picture + 0.1)
        assert torch.allclose(found, kept * before, atol=1e-5)
        assert (kept - 1).abs().max() < 0.1
    noise = 0.5 + 0.002 * (picture - 0.5)
    assert standardise(noise).abs().max() < 0.001 / CONTRAST_FLOOR + 0.01


def test_every_input_matters_and_padding_does_not() -> None:
    policy, given = CompactPolicy.new(config(), seed=0), inputs(1)
    with torch.no_grad():
        before = policy(**given)
        for name, tensor in given.items():
            changed = {**given, name: tensor.flip(-1) if name != "images" else 255 - tensor}
            assert not torch.equal(policy(**changed), before) or name == "text"
        longer = torch.cat([given["text"], torch.zeros(1, 4, dtype=torch.int64)], dim=1)
        assert torch.allclose(policy(**{**given, "text": longer}), before, atol=1e-5)
        assert not torch.allclose(policy(**{**given, "text": given["text"] * 0}), before, atol=1e-4)


def test_grid_holds_column_then_row() -> None:
    assert position_grid(2).tolist() == [[-1, -1], [1, -1], [-1, 1], [1, 1]]


def test_bad_config_names_the_choices() -> None:
    with pytest.raises(ValueError, match="valid: ordinal, categorical"):
        config(head="softmax")
    with pytest.raises(ValueError, match="multiple of 16, got 40"):
        config(side_px=40)
