"""Bundles run by torch: an OpenVLA and a diffusion policy, exported, served by a real process, tried on the twin."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.policy_client import PolicyClient
from deploy.served_policy import describe, open_policy
from rehearsal.bundle import read_bundle
from rehearsal.cell import Cell
from rehearsal.errors import RehearsalError
from rehearsal.messages import Observation

torch = pytest.importorskip("torch", reason="a robot PC has no torch, and exports nothing")

CAMERA, SIDE_PX = "wrist", 32


@pytest.fixture(scope="module")
def openvla(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Any:
    """A tiny OpenVLA of random weights, told about the cell."""
    from training.policies.openvla.adopt import adopt
    from training.policies.openvla.options import OpenVLAOptions
    from training.policies.openvla.prompt import make_tokenizer
    from training.policies.openvla.tiny import make_tiny, tiny_sizes, write_tiny
    from training.simulators.workplace import read_workplace

    folder = tmp_path_factory.mktemp("checkpoint")
    write_tiny(folder, make_tiny(tiny_sizes(hidden=32, layers=2), 0, chunk_steps=1, action_dim=1))
    make_tokenizer(folder, ["click the bell"])
    workplace = read_workplace(root / "launch/cells/single_piper.toml")
    spec = workplace.action_spec
    bounds = {"min": spec.lower, "max": spec.upper}
    statistics = {"action": bounds | {"mask": [True] * 7}, "proprio": bounds}
    options = OpenVLAOptions(
        cameras=(CAMERA,), side_px=SIDE_PX, chunk_steps=5, bounds="extremes", mirror=False, weights="float32",
        prompt_length=24,
    )  # fmt: skip
    return adopt(folder, workplace, "click_bell", options, statistics)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, openvla: Any) -> Path:
    from training.export.bundle_export import export_bundle

    folder = tmp_path_factory.mktemp("bundles") / "openvla"
    manifest = export_bundle(openvla, folder)
    assert (manifest.runtime, manifest.model_file, manifest.transform) == ("torch", "policy.json", None)
    return folder


def look(seed: int, side_px: int = SIDE_PX) -> Observation:
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
    state = rng.uniform(0, 0.1, 7).astype(np.float32)
    return Observation(images={CAMERA: picture}, state=state, instruction="click the bell", captured_at=float(seed))


def test_the_server_plays_what_training_evaluates(
    bundle: Path, openvla: Any, start_server: Callable[..., Any], single_piper: Cell
) -> None:
    from rehearsal.transforms import batch

    looks = [look(1), look(2)]
    expected = openvla.act(batch(looks))
    assert np.ptp(expected, axis=1).max() > 0.01
    server = start_server(bundle)
    with PolicyClient(server.address, spec=single_piper.action_spec()) as client:
        assert client.description == describe(read_bundle(bundle))
        served = client.infer(looks)
    for chunk, actions in zip(served, expected, strict=True):
        np.testing.assert_allclose(chunk.actions, actions, atol=1e-5)


def test_pictures_of_different_sizes_share_a_batch(bundle: Path) -> None:
    policy = open_policy(bundle, threads=1)
    looks = [look(1), look(2, 64), look(3)]
    together = policy.infer(looks)
    assert [chunk.sequence for chunk in together] == [1, 2, 3]
    assert [chunk.captured_at for chunk in together] == [1.0, 2.0, 3.0]
    for chunk, each in zip(together, looks, strict=True):
        np.testing.assert_allclose(chunk.actions, policy.infer([each])[0].actions, atol=1e-5)


def test_a_damaged_checkpoint_is_refused_before_it_is_loaded(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(bundle, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(RehearsalError, match=r"corrupted bundle: .*model.safetensors differs from its checksum"):
        open_policy(folder)


def test_without_torch_it_says_what_to_install(bundle: Path, root: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\nfrom deploy.served_policy import open_policy\n"
        "from rehearsal.errors import run_command\n"
        f"run_command(lambda: open_policy(Path({json.dumps(str(bundle))})) and 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 1
    assert "is run by torch and needs torch; install it: pip install -e '.[models]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_ten_trials_run_through_the_server(
    bundle: Path, start_server: Callable[..., Any], run_script: Callable[..., Any], root: Path, tmp_path: Path
) -> None:
    """Random weights reach nothing; the trials are played, judged and logged all the same."""
    server = start_server(bundle)
    done = run_script(
        "deploy/run_trials.py", "--n", "10", "--cell", root / "launch/cells/single_piper.toml",
        "--server", server.address, "--out", tmp_path / "trials",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "/10 = " in done.stdout and (tmp_path / "trials/report.html").is_file()
