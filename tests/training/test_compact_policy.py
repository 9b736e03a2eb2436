import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from training.policies.compact import CompactPolicy, CompactPolicyConfig, OrdinalHead, position_grid


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


def one_gaussian(offset: float, log_std: float) -> OrdinalHead:
    """Returns a head of 16 bins that gives these two outputs whatever the query."""
    head = CompactPolicy.new(config(action_dim=1, bins=16, std_floor_bins=0.5, modes=1), seed=0).head
    assert isinstance(head, OrdinalHead)
    with torch.no_grad():
        head.out.weight.zero_()
        head.out.bias[:2] = torch.tensor([offset, log_std])
    return head


def test_ordinal_logits_are_a_gaussian_over_the_bins() -> None:
    """Output 0.25 and log std log 2 with 16 bins: mean 8 (1 + 1.2 x 0.25) - 0.5 = 9.9, so bin 10 is the nearest."""
    with torch.no_grad():
        logits = one_gaussian(0.25, math.log(2.0))(torch.zeros(1, 1, 32)).flatten()
    expected = -((torch.arange(16.0) - 9.9).square()) / 8
    assert torch.allclose(logits.log_softmax(0), expected.log_softmax(0), atol=1e-5)
    assert logits.max().item() == pytest.approx(0, abs=1e-6)
    assert logits.argmax().item() == 10


def test_ordinal_std_has_a_floor_and_logits_stay_finite_far_outside() -> None:
    with torch.no_grad():
        logits = one_gaussian(50.0, -30.0)(torch.zeros(1, 1, 32)).flatten()
    assert torch.isfinite(logits).all()
    assert logits.argmax().item() == 15


def test_ordinal_gradient_is_that_of_the_plain_gaussian() -> None:
    """Logits measured from the nearest bin shift all by the same number, which no softmax sees."""
    outputs = torch.tensor([0.31, 1.1], dtype=torch.float64, requires_grad=True)
    mean, std = 8 * (1 + 1.2 * outputs[0]) - 0.5, outputs[1].exp()
    plain = -((torch.arange(16) - mean) ** 2) / (2 * std**2)
    plain.log_softmax(0)[3].backward()
    head = one_gaussian(0.31, 1.1)
    head(torch.zeros(1, 1, 32)).flatten().log_softmax(0)[3].backward()
    assert head.out.bias.grad is not None and outputs.grad is not None
    assert torch.allclose(head.out.bias.grad[:2].double(), outputs.grad, rtol=1e-4)


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
