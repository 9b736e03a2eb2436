"""A bundle is complete, of this format and undamaged, or it is refused with what to do."""

import json
from pathlib import Path

import msgspec
import pytest

from rehearsal.action_codec import ActionCodec
from rehearsal.bundle import FORMAT, BundleManifest, latest_bundle, mark_latest, read_bundle, write_manifest
from rehearsal.errors import RehearsalError
from rehearsal.spec import ActionSpec
from rehearsal.transforms import InputTransform


def manifest() -> BundleManifest:
    return BundleManifest(
        format=FORMAT,
        name="press",
        cell="single_piper",
        task="click_bell",
        model_file="policy.onnx",
        runtime="onnx",
        action_spec=ActionSpec(
            names=("j1",), units=("rad",), frame="joint", mode="absolute", gripper_sign=1, lower=(-1.0,), upper=(1.0,),
            rate_hz=20.0,
        ),
        codec=ActionCodec(chunk_steps=8, knots=2, bins=256, lower=(-1.0,), upper=(1.0,), relative=(True,)),
        transform=InputTransform(
            cameras=("head",), side_px=96, state_mean=(0.0,), state_std=(1.0,), text_buckets=512, text_length=16
        ),
        cameras=("head",),
        side_px=96,
        chunk_steps=8,
        decoding="mean",
        training={"recipe": "sft", "seed": 3},
        checksums={},
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "press"
    folder.mkdir()
    (folder / "policy.onnx").write_bytes(b"weights")
    (folder / "notes.txt").write_text("trained on a Monday")
    write_manifest(folder, manifest())
    return folder


def test_what_is_written_is_read(bundle: Path) -> None:
    read = read_bundle(bundle)
    # sha256sum of the seven bytes `weights`.
    assert read.checksums["policy.onnx"] == "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"
    assert set(read.checksums) == {"policy.onnx", "notes.txt"}
    assert msgspec.structs.replace(read, checksums={}) == manifest()


def test_a_leftover_of_an_interrupted_write_is_no_part_of_the_bundle(bundle: Path) -> None:
    (bundle / "bundle.json.partial").write_text("half a manif")
    write_manifest(bundle, manifest())
    assert set(read_bundle(bundle).checksums) == {"policy.onnx", "notes.txt"}


def test_every_damage_is_named(bundle: Path) -> None:
    (bundle / "policy.onnx").write_bytes(b"weighty")
    with pytest.raises(RehearsalError, match=r"corrupted bundle: .*policy\.onnx differs from its checksum"):
        read_bundle(bundle)
    (bundle / "policy.onnx").unlink()
    with pytest.raises(RehearsalError, match=r"corrupted bundle: .*policy\.onnx is missing"):
        read_bundle(bundle)


def test_a_damaged_manifest_is_named(bundle: Path) -> None:
    path = bundle / "bundle.json"
    whole = path.read_text()
    for text, message in (
        (whole[:200], "corrupted bundle"),
        (whole.replace('"mean"', "7"), "corrupted bundle: .*decoding"),
        (whole.replace('"name": "press"', '"nickname": "press"'), "corrupted bundle: .*nickname"),
        (whole.replace('"policy.onnx"', '"other.onnx"', 1), r"no checksum for other\.onnx"),
        ("", "corrupted bundle"),
    ):
        path.write_text(text)
        with pytest.raises(RehearsalError, match=message):
            read_bundle(bundle)


def test_another_format_is_told_apart_from_damage(bundle: Path) -> None:
    path = bundle / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": FORMAT + 1, "new_field": True}))
    with pytest.raises(RehearsalError, match=f"has format {FORMAT + 1}, this software reads {FORMAT}"):
        read_bundle(bundle)


def test_an_empty_folder_says_how_to_make_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(RehearsalError, match=r"no policy bundle in .*export_policy\.py"):
        read_bundle(tmp_path)


def test_the_latest_bundle_is_the_one_marked_last(bundle: Path) -> None:
    root = bundle.parent
    with pytest.raises(RehearsalError, match=r"no policy bundle in .*--policy FOLDER"):
        latest_bundle(root)
    mark_latest(bundle)
    assert latest_bundle(root) == bundle
    (root / "newer").mkdir()
    mark_latest(root / "newer")
    assert latest_bundle(root) == root / "newer"
    (root / "newer").rmdir()
    with pytest.raises(RehearsalError, match="no policy bundle"):
        latest_bundle(root)
