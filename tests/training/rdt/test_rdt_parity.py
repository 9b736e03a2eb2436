"""Parity with the public reference implementation (see conftest.py)."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor

from training.policies.rdt.model import RDT, RmsNorm
from training.policies.rdt.sampling import Conditions, denoising_loss, forward_process, predict, sample

Arrays = dict[str, Tensor]
Close = Callable[[Tensor, Tensor], None]


def test_rms_norm_divides_by_the_standard_deviation(reference_rdt: RDT, reference: Arrays, close: Close) -> None:
    close(reference_rdt.model.blocks[0].norm1(reference["norm_in"]), reference["norm_out"])
    # By hand: 1, 2, 6 have mean 3 and unbiased variance (4 + 1 + 9) / 2 = 7.
    close(RmsNorm(3, eps=0.0)(torch.tensor([1.0, 2.0, 6.0])), torch.tensor([1.0, 2.0, 6.0]) / 7**0.5)


def test_timestep_waves_are_cosines_then_sines(reference_rdt: RDT, reference: Arrays, close: Close) -> None:
    close(reference_rdt.model.t_embedder.waves(reference["timestep"]), reference["timestep_waves"])


def test_forward_with_and_without_masks(
    reference_rdt: RDT, reference: Arrays, reference_conditions: Conditions, close: Close
) -> None:
    noisy = reference["noisy"]
    with torch.no_grad():
        masked = predict(reference_rdt, reference_conditions, noisy, reference["timestep"])
        unmasked = predict(
            reference_rdt, replace(reference_conditions, language_mask=None), noisy, torch.tensor([500])
        )
    close(masked, reference["predicted_masked"])
    close(unmasked, reference["predicted_unmasked"])
    assert (masked - unmasked).abs().max() > 0.1


def test_forward_with_a_mask_of_image_tokens(reference_rdt: RDT, reference: Arrays, close: Close) -> None:
    rdt, row = reference_rdt, torch.cat([reference["state"], reference["noisy"]], dim=1)
    with torch.no_grad():
        found = rdt.model(
            rdt.state_adaptor(torch.cat([row, reference["mask"].expand(-1, 5, -1)], dim=2)),
            reference["frequency_hz"],
            reference["timestep"],
            rdt.lang_adaptor(reference["language"]),
            rdt.img_adaptor(reference["image"]),
            reference["language_mask"],
            reference["image_mask"],
        )
    close(found, reference["predicted_both_masked"])


def test_five_steps_of_sampling(
    reference_rdt: RDT, reference: Arrays, reference_conditions: Conditions, close: Close
) -> None:
    found = sample(reference_rdt, reference_conditions, reference["sample_noise"])
    close(found, reference["sampled"])
    close(found, reference["sample_steps"][-1] * reference["mask"])
    assert (found[2, :, 3:] == 0).all(), "slots outside the mask are zero"
    assert not torch.allclose(sample(reference_rdt, reference_conditions, reference["sample_noise"], steps=2), found)


def test_training_loss_and_gradients(
    reference_rdt: RDT, reference: Arrays, reference_conditions: Conditions, close: Close, reference_folder: Path
) -> None:
    process = forward_process(reference_rdt.config.config.noise_scheduler)
    loss = denoising_loss(
        reference_rdt, reference_conditions, reference["actions"], reference["loss_noise"],
        reference["loss_timestep"], process,
    )  # fmt: skip
    close(loss, reference["loss"])
    loss.backward()
    wanted = json.loads((reference_folder / "gradient_norms.json").read_text())
    found = {name: weight.grad.norm().item() for name, weight in reference_rdt.named_parameters()}
    assert found == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def test_untrained_weights_begin_as_published(reference_rdt: RDT, reference: Arrays, close: Close) -> None:
    config = reference_rdt.config
    fresh = RDT.new(config, seed=0)
    for name in ("x_pos_embed", "lang_cond_pos_embed", "img_cond_pos_embed"):
        close(getattr(fresh.model, name), reference[f"start_{name}"])
    without = RDT.new(
        msgspec.structs.replace(config, lang_pos_embed_config=None, img_pos_embed_config=None), seed=0
    )
    for name in ("lang_cond_pos_embed", "img_cond_pos_embed"):
        close(getattr(without.model, name), reference[f"plain_{name}"])


def test_an_untrained_model_predicts_zero_and_its_seed_fixes_it(
    reference_rdt: RDT, reference: Arrays, reference_conditions: Conditions
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (RDT.new(reference_rdt.config, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected), "the global generator is left alone"
    with torch.no_grad():
        assert predict(first, reference_conditions, reference["noisy"], reference["timestep"]).abs().max() == 0
    assert torch.equal(first.lang_adaptor[0].weight, second.lang_adaptor[0].weight)
    assert not torch.equal(first.lang_adaptor[0].weight, other.lang_adaptor[0].weight)
