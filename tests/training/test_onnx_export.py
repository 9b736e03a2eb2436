"""A real export run by a real ONNX session."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from rehearsal.bundle import latest_bundle, read_bundle
from rehearsal.errors import RehearsalError
from training.export import onnx_export
from training.export.bundle_export import export_bundle
from training.export.onnx_export import TOLERANCE, example_inputs, measure_parity
from training.policies.policy import load_policy
from training.policies.trained_policy import TrainedPolicy

Maker = Callable[..., TrainedPolicy]


@pytest.fixture(scope="module", params=["ordinal", "categorical"])
def exported(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles") / request.param


def test_bundle_is_complete_and_agrees_with_torch(exported: Path, toy_policy: Maker) -> None:
    policy = toy_policy(head=exported.name)
    manifest = export_bundle(policy, exported, decoding="mean")
    assert read_bundle(exported) == manifest
    parity = manifest.training["parity"]
    assert parity["logits"] <= TOLERANCE and parity["tokens"] == 0 and parity["probabilities"] <= TOLERANCE
    assert latest_bundle(exported.parent) == exported
    assert (manifest.name, manifest.task, manifest.decoding) == (exported.name, "toy_reach", "mean")
    assert manifest.codec == policy.record.codec and manifest.transform == policy.record.transform
    session = onnxruntime.InferenceSession(str(exported / manifest.model_file))
    for frames in (1, 3, 40):
        inputs = example_inputs(policy, frames, seed=8)
        found = session.run(["logits"], inputs)[0]
        expected = policy.logits(inputs).numpy()
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= TOLERANCE * max(1, np.abs(expected).max())
        assert np.array_equal(found.argmax(-1), expected.argmax(-1))


def test_a_model_that_differs_is_not_exported(
    toy_policy: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, other = toy_policy(), toy_policy(seed=1)
    write = onnx_export.write_onnx
    monkeypatch.setattr(onnx_export, "write_onnx", lambda model, inputs, path: write(other.model, inputs, path))
    with pytest.raises(RehearsalError, match="not exported: policy.onnx differs from torch"):
        export_bundle(policy, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_parity_sees_a_small_change_of_one_weight(exported: Path, toy_policy: Maker) -> None:
    policy = toy_policy(head=exported.name)
    if not (exported / "policy.onnx").is_file():
        export_bundle(policy, exported)
    with torch.no_grad():
        policy.model.queries[0, 0] += 0.1
    assert measure_parity(policy, exported / "policy.onnx").logits > TOLERANCE


def test_policy_folder_round_trip(toy_policy: Maker, tmp_path: Path) -> None:
    policy = toy_policy()
    policy.save(tmp_path / "run" / "policy")
    for folder in (tmp_path / "run", tmp_path / "run" / "policy"):
        again = load_policy(folder)
        assert again.record == policy.record
        inputs = example_inputs(policy, 3, seed=0)
        assert torch.equal(again.logits(inputs), policy.logits(inputs))
    with pytest.raises(RehearsalError, match="no trained policy in"):
        load_policy(tmp_path)
