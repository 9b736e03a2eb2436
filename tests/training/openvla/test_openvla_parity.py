"""Logits, log-probabilities, tokens and actions are those of the reference implementation, for both layouts."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from rehearsal.cell import read_cell
from training.policies.openvla.config import EMPTY_ID
from training.policies.openvla.model import OpenVLA, bins_of
from training.policies.openvla.statistics import action_codec, read_statistics, state_bounds
from training.policies.token_distribution import log_probs
from training.simulators.libero.actions import ACTION_SPEC

ROOT = Path(__file__).parents[3]
SPECS = {"libero": ACTION_SPEC, "aloha": read_cell(ROOT / "launch/cells/dual_piper.toml").action_spec()}
DATASETS = {"libero": ("libero_spatial_no_noops", "q99"), "aloha": ("aloha_test", "extremes")}
ROBOTS = ("libero", "aloha")
ROWS = {"libero": 1, "aloha": 5}


def inputs(reference: dict[str, np.ndarray], robot: str) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel values, state and prompt, which ends with the empty token."""
    text = torch.from_numpy(reference[f"{robot}.input_ids"])
    if text[0, -1] != EMPTY_ID:
        text = torch.cat([text, torch.tensor([[EMPTY_ID]])], dim=1)
    state = torch.from_numpy(reference["aloha.proprio"]).float()[None] if robot == "aloha" else torch.zeros(1, 8)
    return torch.from_numpy(reference[f"{robot}.pixel_values"]), state, text


@torch.no_grad()
def logits_of(model: OpenVLA, reference: dict[str, np.ndarray], robot: str) -> Tensor:
    return model.action_logits(model.action_states(*inputs(reference, robot)))


@pytest.mark.parametrize("robot", ROBOTS)
def test_logits_are_the_references(models: dict[str, OpenVLA], reference: dict[str, np.ndarray], robot: str) -> None:
    """Wanted: 4e-4. Their columns are in the vocabulary's order, ours in that of the bins."""
    found = logits_of(models[robot], reference, robot).flatten(1, 2).flip(-1)[:, :: ROWS[robot]]
    expected = torch.from_numpy(reference[f"{robot}.action_logits_256"])
    assert float((found - expected).abs().max()) <= 4e-4
    assert float(expected.abs().max()) > 3, "the comparison would otherwise say little"


@pytest.mark.parametrize("robot", ROBOTS)
def test_log_probabilities_are_the_references(
    models: dict[str, OpenVLA], reference: dict[str, np.ndarray], robot: str
) -> None:
    """Softmax over the 256 action words at SimpleVLA-RL's temperature of 1.6; wanted: 1.5e-4."""
    bins = bins_of(torch.from_numpy(reference[f"{robot}.greedy_ids_256"]))[:, :: ROWS[robot]]
    expected = torch.from_numpy(reference[f"{robot}.action_logits_256"]).double() / 1.6
    expected = expected.log_softmax(-1).gather(-1, (255 - bins)[..., None]).squeeze(-1)
    found = logits_of(models[robot], reference, robot).flatten(1, 2)[:, :: ROWS[robot]]
    assert float((log_probs(found, bins, 1.6) - expected).abs().max()) <= 1.5e-4


@pytest.mark.parametrize("robot", ROBOTS)
def test_decoded_tokens_and_actions_are_the_references(
    models: dict[str, OpenVLA], checkpoints: dict[str, Path], reference: dict[str, np.ndarray], robot: str
) -> None:
    name, bounds = DATASETS[robot]
    statistics = read_statistics(checkpoints[robot], name)[1]
    codec = action_codec(statistics, SPECS[robot], models[robot].chunk_steps, bounds=bounds)
    tokens = logits_of(models[robot], reference, robot).argmax(-1)
    assert torch.equal(tokens.flatten(1), bins_of(torch.from_numpy(reference[f"{robot}.greedy_ids_256"])))
    plain = msgspec.structs.replace(codec, switch=())
    actions = plain.decode(tokens.numpy(), np.zeros((1, SPECS[robot].dim)))[0]
    assert np.abs(actions - reference[f"{robot}.actions"]).max() < 1e-6


def test_the_l1_heads_actions_are_the_references(
    models: dict[str, OpenVLA], checkpoints: dict[str, Path], reference: dict[str, np.ndarray]
) -> None:
    model = models["libero"]
    assert model.l1_head is not None
    with torch.no_grad():
        found = model.l1_head(model.action_states(*inputs(reference, "libero")))[0].numpy()
    assert np.abs(found - reference["libero.l1"]).max() <= 1.2e-4
    statistics = read_statistics(checkpoints["libero"], "libero_spatial_no_noops")[1]
    codec = action_codec(statistics, ACTION_SPEC, 8, bounds="q99")
    plain = msgspec.structs.replace(codec, switch=())
    assert np.abs(plain.decode_normalised(found) - reference["libero.actions_l1"]).max() <= 1.2e-4


def test_the_normalised_state_is_the_references(checkpoints: dict[str, Path], reference: dict[str, np.ndarray]) -> None:
    bounds = state_bounds(read_statistics(checkpoints["aloha"], "aloha_test")[1], 14, bounds="extremes")
    assert bounds.normalise(reference["aloha.proprio_raw"]) == pytest.approx(reference["aloha.proprio"], abs=1e-6)


def test_the_stop_token_is_seen_from_everywhere(models: dict[str, OpenVLA], reference: dict[str, np.ndarray]) -> None:
    """Attention is bidirectional: the last place changes the first action's logits; a causal model's it does not."""
    model = models["libero"]
    embeddings, seen, first = model.sequence(*inputs(reference, "libero"))
    changed = embeddings.clone()
    changed[:, -1] += 1.0
    with torch.no_grad():
        there = [model.hidden_states(each, seen)[0, first[0]] for each in (embeddings, changed)]
        model.attention = "causal"
        causal = [model.hidden_states(each, seen)[0, first[0]] for each in (embeddings, changed)]
        model.attention = "bidirectional"
    assert float((there[0] - there[1]).abs().max()) > 0.1
    assert torch.equal(*causal)
