"""One observation through training's path and through the server's: the same model input, the same actions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from deploy.onnx_policy import OnnxPolicy
from deploy.policy_client import PolicyClient
from deploy.served_policy import describe
from deploy.twin_cell import open_twin
from rehearsal.action_codec import ActionCodec
from rehearsal.bundle import read_bundle, write_manifest
from rehearsal.cell import Cell
from rehearsal.messages import Observation
from rehearsal.simulation import ObservationBatch, scenarios
from rehearsal.transforms import InputTransform

torch = pytest.importorskip("torch", reason="a robot PC has no torch, and exports nothing")

CAMERAS, SIDE_PX = ("head", "wrist"), 32


@pytest.fixture(scope="module")
def trained(single_piper: Cell) -> Any:
    """A compact policy with random weights and everything around it."""
    from training.policies.compact import CompactPolicy, CompactPolicyConfig
    from training.policies.trained_policy import PolicyRecord, TrainedPolicy

    spec = single_piper.action_spec()
    torch.manual_seed(3)
    config = CompactPolicyConfig(
        cameras=len(CAMERAS), side_px=SIDE_PX, state_dim=spec.dim, text_buckets=64, knots=2, action_dim=spec.dim,
        bins=32, width=32, layers=1, heads=2, head="categorical",
    )  # fmt: skip
    model = CompactPolicy(config).eval()
    record = PolicyRecord(
        cell=single_piper.name,
        task="click_bell",
        action_spec=spec,
        transform=InputTransform(
            cameras=CAMERAS,
            side_px=SIDE_PX,
            state_mean=tuple(0.1 * i for i in range(spec.dim)),
            state_std=(0.4,) * spec.dim,
            text_buckets=64,
            text_length=8,
        ),
        codec=ActionCodec(
            chunk_steps=8,
            knots=2,
            bins=32,
            lower=(-0.3,) * spec.dim,
            upper=(0.3,) * spec.dim,
            relative=(True,) * (spec.dim - 1) + (False,),
        ),
    )
    return TrainedPolicy(model, record)


@pytest.fixture(scope="module")
def looks(single_piper: Cell) -> list[Observation]:
    """What the twin shows at the beginning of three held-out scenarios, at twice the policy's size."""
    cell = open_twin(single_piper, "click_bell", cameras=CAMERAS, side_px=2 * SIDE_PX)
    seen = []
    for scenario in scenarios("click_bell", "held_out", 3):
        cell.reset(scenario)
        seen.append(cell.observe())
    cell.close()
    return seen


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, trained: Any) -> Path:
    from training.export.bundle_export import export_bundle

    folder = tmp_path_factory.mktemp("bundles") / "exported"
    export_bundle(trained, folder)
    return folder


@pytest.mark.parametrize("decoding", ["argmax", "mean"])
def test_the_server_plays_what_training_evaluates(
    trained: Any, exported: Path, looks: list[Observation], start_server: Callable[..., Any], decoding: str
) -> None:
    write_manifest(exported, msgspec.structs.replace(read_bundle(exported), decoding=decoding))
    batch = ObservationBatch(
        images={name: np.stack([each.images[name] for each in looks]) for name in CAMERAS},
        state=np.stack([each.state for each in looks]),
        instructions=[each.instruction for each in looks],
    )
    expected = trained.act(batch, decoding)
    assert np.ptp(expected, axis=0).max() > 0.01  # the three situations ask for different actions

    policy = OnnxPolicy(exported)
    served_input = policy.manifest.transform(batch)
    for name, array in trained.record.transform(batch).items():
        np.testing.assert_array_equal(served_input[name], array)
    direct = np.stack([chunk.actions for chunk in policy.infer(looks)])
    np.testing.assert_allclose(direct, expected, atol=1e-4)

    server = start_server(exported)
    with PolicyClient(server.address, spec=trained.record.action_spec) as client:
        assert client.description == describe(policy.manifest)
        served = np.stack([chunk.actions for chunk in client.infer(looks)])
    np.testing.assert_allclose(served, expected, atol=1e-4)
