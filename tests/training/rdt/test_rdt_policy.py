from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from deploy.torch_policy import TorchPolicy
from rehearsal.errors import RehearsalError
from rehearsal.messages import Observation
from rehearsal.simulation import ObservationBatch
from training.export.bundle_export import export_bundle
from training.policies.policy import load_policy
from training.policies.rdt.import_checkpoint import ImportRDT, import_rdt
from training.policies.rdt.policy import RDTPolicy
from training.policies.trained_policy import load_token_policy

CELLS = Path(__file__).parents[3] / "launch/cells"


@pytest.fixture
def config(encoders: Path, tmp_path: Path) -> ImportRDT:
    return ImportRDT(
        checkpoint=encoders / "rdt", language=encoders / "language.safetensors", vision=encoders / "siglip",
        cell=CELLS / "single_piper.toml", external="head", right="wrist", side_px=32, half=False, out=tmp_path / "rdt",
    )  # fmt: skip


@pytest.fixture
def policy(config: ImportRDT) -> RDTPolicy:
    return import_rdt(config)


def look(count: int = 3) -> ObservationBatch:
    rng = np.random.default_rng(1)
    images = {name: rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8) for name in ("head", "wrist")}
    return ObservationBatch(
        images={name: pictures[:count] for name, pictures in images.items()},
        state=rng.uniform(0, 0.05, (3, 7)).astype(np.float32)[:count],
        instructions=["pick the bottle", "push", "push"][:count],
    )


def test_actions_are_whole_chunks_within_the_bounds(policy: RDTPolicy) -> None:
    actions = policy.act(look())
    assert actions.shape == (3, 6, 7) and actions.dtype == np.float32
    assert np.array_equal(actions, policy.record.action_spec.clip(actions))
    assert (policy.cameras, policy.side_px, policy.state_dim, policy.chunk_steps) == (("head", "wrist"), 32, 7, 6)


def test_noise_follows_from_seed_and_call_alone(policy: RDTPolicy) -> None:
    first, second = policy.act(look()), policy.act(look())
    assert not np.allclose(first, second)
    policy.reset()
    torch.manual_seed(9)
    np.testing.assert_array_equal(policy.act(look()), first)
    policy.reset()
    np.testing.assert_allclose(policy.act(look(2)), first[:2], atol=1e-5)
    policy.record = msgspec.structs.replace(policy.record, seed=1)
    policy.reset()
    assert not np.allclose(policy.act(look()), first)


def test_every_input_matters(policy: RDTPolicy) -> None:
    def act(**changes: object) -> np.ndarray:
        policy.reset()
        return policy.act(ObservationBatch(**{**vars(look()), **changes}))

    plain = act()
    dark = {name: picture // 4 for name, picture in look().images.items()}
    assert not np.allclose(act(images=dark), plain)
    assert not np.allclose(act(state=look().state + 0.5), plain)
    assert not np.allclose(act(instructions=["push"] * 3)[0], plain[0])


def test_a_saved_policy_acts_the_same_wherever_it_lies(policy: RDTPolicy, config: ImportRDT, tmp_path: Path) -> None:
    expected = policy.act(look())
    loaded = load_policy(config.out)
    np.testing.assert_array_equal(loaded.act(look()), expected)
    loaded.save(tmp_path / "elsewhere")
    np.testing.assert_array_equal(load_policy(tmp_path / "elsewhere").act(look()), expected)
    with pytest.raises(RehearsalError, match="holds a RDTPolicy, which has no action tokens"):
        load_token_policy(config.out)


def test_a_bundle_serves_what_the_policy_does(policy: RDTPolicy, tmp_path: Path) -> None:
    expected = policy.act(look(1))
    export_bundle(policy, tmp_path / "bundle")
    served = TorchPolicy(tmp_path / "bundle")
    batch = look(1)
    observation = Observation(
        images={name: picture[0] for name, picture in batch.images.items()},
        state=batch.state[0], instruction=batch.instructions[0], captured_at=1.0,
    )  # fmt: skip
    (chunk,) = served.infer([observation])
    np.testing.assert_allclose(chunk.actions, expected[0], atol=1e-5)


def test_only_the_first_steps_of_a_sample_are_played(policy: RDTPolicy, config: ImportRDT) -> None:
    short = import_rdt(msgspec.structs.replace(config, chunk_steps=2))
    assert short.act(look()).shape == (3, 2, 7)
    np.testing.assert_allclose(load_policy(config.out).act(look()), policy.act(look())[:, :2])
    with pytest.raises(RehearsalError, match="chunk_steps = 7: the model gives 6 actions at once; valid: 1 to 6"):
        import_rdt(msgspec.structs.replace(config, chunk_steps=7))


def test_half_precision_stays_close(policy: RDTPolicy, config: ImportRDT) -> None:
    half = import_rdt(msgspec.structs.replace(config, half=True))
    assert half.rdt.dtype == torch.bfloat16
    np.testing.assert_allclose(half.act(look()), policy.act(look()), atol=0.15)


def test_what_does_not_fit_is_refused(config: ImportRDT, reference_folder: Path) -> None:
    with pytest.raises(RehearsalError, match="unknown camera of cell single_piper: 'side'; valid: head, wrist"):
        import_rdt(msgspec.structs.replace(config, external="side"))
    with pytest.raises(RehearsalError, match="unknown task for cell single_piper: 'fold'"):
        import_rdt(msgspec.structs.replace(config, task="fold"))
    with pytest.raises(RehearsalError, match="the model has 12 slots; the layout has 128 for 7"):
        import_rdt(msgspec.structs.replace(config, checkpoint=reference_folder))
