import math

import pytest
import torch

from training.policies.token_distribution import decode, log_probs, log_probs_and_entropy, sample


def test_uniform_logits_have_exact_expectations() -> None:
    logits = torch.full((3, 2, 256), 7.5)
    tokens = torch.tensor([[0, 255], [1, 2], [3, 128]])
    found, entropy = log_probs_and_entropy(logits, tokens, temperature=1.6)
    assert torch.allclose(found, torch.full((3, 2), -math.log(256)))
    assert torch.allclose(entropy, torch.full((3, 2), math.log(256)), atol=1e-5)
    assert torch.allclose(decode(logits, "mean"), torch.full((3, 2), 127.5))


def test_temperature_divides_the_logits() -> None:
    """Logits 0 and log 3 at temperature 1: 1/4 and 3/4. At temperature 2: 1 / (1 + sqrt 3) and the rest."""
    logits = torch.tensor([0.0, math.log(3.0)])
    assert log_probs(logits, torch.tensor(1)).exp().item() == pytest.approx(0.75)
    assert log_probs(logits, torch.tensor(0), 2.0).exp().item() == pytest.approx(1 / (1 + math.sqrt(3)))


UNIFORM = [(0.0, 0), (0.249, 0), (0.251, 1), (0.749, 1), (0.751, 2), (1 - 1e-16, 2)]


@pytest.mark.parametrize(("uniform", "token"), UNIFORM)
def test_sampling_inverts_the_cumulative_distribution(uniform: float, token: int) -> None:
    """Probabilities 1/4, 1/2, 1/4 end at 0.25, 0.75 and 1."""
    logits = torch.tensor([[1.0, 2.0, 1.0]]).log()
    tokens, scored = sample(logits, 1.0, torch.tensor([uniform], dtype=torch.float64))
    assert tokens.item() == token
    assert scored.item() == pytest.approx(math.log([0.25, 0.5, 0.25][token]), abs=1e-6)


def test_sampling_never_takes_a_bin_without_probability() -> None:
    logits = torch.tensor([float("-inf"), 0.0, float("-inf")])
    assert sample(logits, 1.0, torch.tensor(0.0))[0].item() == 1
    assert sample(logits, 1.0, torch.tensor(0.9999999))[0].item() == 1


def test_sample_frequencies_follow_the_probabilities() -> None:
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4])
    uniform = (torch.arange(10_000) + 0.5) / 10_000
    tokens, _ = sample(probabilities.log().expand(10_000, 4), 1.0, uniform)
    assert torch.bincount(tokens, minlength=4).tolist() == [1000, 2000, 3000, 4000]


def test_sampled_and_scored_distributions_are_the_same() -> None:
    logits = torch.randn(50, 4, 256, generator=torch.Generator().manual_seed(0)) * 3
    tokens, scored = sample(logits, 1.6, torch.rand(50, 4, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(scored, log_probs(logits, tokens, 1.6))


def test_argmax_and_mean_decode_what_they_say() -> None:
    logits = torch.tensor([[0.5, 0.2, 0.3]]).log()
    assert decode(logits, "argmax").item() == 0
    assert decode(logits, "mean").item() == pytest.approx(0.2 + 2 * 0.3)
