"""The policy bundle: a folder with a model file, `bundle.json` and a checksum of each file.

A robot PC needs nothing else to serve a policy: the spec, the input transform, the action codec and the training
record are all in `bundle.json`.
"""

import hashlib
import os
from pathlib import Path
from typing import Any, Literal

import msgspec

from rehearsal.action_codec import ActionCodec
from rehearsal.errors import RehearsalError
from rehearsal.spec import ActionSpec
from rehearsal.transforms import InputTransform

MANIFEST = "bundle.json"
LATEST = "latest"

Runtime = Literal["onnx", "torch"]
Decoding = Literal["argmax", "mean"]
"""What of a token's distribution is played: the likeliest bin, or the expected one."""


class BundleManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bundle says of itself. `checksums`: file name -> SHA-256 of every other file in the folder.

    `cell` and `task` are what it was trained for; `training` is the record of the run (recipe, seeds, commit).
    `runtime` says what runs `model_file`: onnx, or torch, whose folder is that of a policy and needs the training
    packages. `cameras`, `side_px`: the pictures it looks at, in its order, and the side of the smallest square ones
    that serve it whole. `chunk_steps`: T. `transform` and `codec` are a bundle's own where the model file holds
    nothing but the model (onnx); a policy's folder has its own.
    """

    format: int
    name: str
    cell: str
    task: str
    model_file: str
    runtime: Runtime
    action_spec: ActionSpec
    cameras: tuple[str, ...]
    side_px: int
    chunk_steps: int
    decoding: Decoding
    training: dict[str, Any]
    checksums: dict[str, str]
    codec: ActionCodec | None = None
    transform: InputTransform | None = None


FORMAT = 2


class _AnyFormat(msgspec.Struct):
    format: int


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, manifest: BundleManifest) -> BundleManifest:
    """Writes `bundle.json` last, and so completes the bundle; returns it with the checksums of the files there."""
    partial = folder / (MANIFEST + ".partial")
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name not in (MANIFEST, partial.name))
    complete = msgspec.structs.replace(manifest, checksums={p.name: sha256(p) for p in files})
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(complete), indent=2))
    os.replace(partial, folder / MANIFEST)
    return complete


def read_bundle(folder: Path) -> BundleManifest:
    """Reads and verifies a bundle; raises RehearsalError when it is absent, of another format, or damaged."""
    path = folder / MANIFEST
    if not path.is_file():
        raise RehearsalError(f"no policy bundle in {folder}: no {MANIFEST}; make one: python training/export_policy.py")
    try:
        # The format first: a bundle of another format may differ in every other field.
        found = msgspec.json.decode(path.read_bytes(), type=_AnyFormat).format
        if found != FORMAT:
            raise RehearsalError(f"{path} has format {found}, this software reads {FORMAT}; export it again")
        manifest = msgspec.json.decode(path.read_bytes(), type=BundleManifest)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise RehearsalError(f"corrupted bundle: {path}: {error}; export it again") from None
    if manifest.model_file not in manifest.checksums:
        raise RehearsalError(f"corrupted bundle: {path} has no checksum for {manifest.model_file}; export it again")
    for name, checksum in manifest.checksums.items():
        file = folder / name
        if not file.is_file() or sha256(file) != checksum:
            state = "differs from its checksum" if file.is_file() else "is missing"
            raise RehearsalError(f"corrupted bundle: {file} {state}; copy or export the bundle again")
    return manifest


def latest_bundle(root: Path) -> Path:
    """Returns the bundle exported last below `root`; raises RehearsalError when there is none."""
    pointer = root / LATEST
    if pointer.is_file() and (folder := root / pointer.read_text(encoding="utf-8").strip()).is_dir():
        return folder
    raise RehearsalError(
        f"no policy bundle in {root}; run ./launch/quickstart.sh, or python training/export_policy.py, "
        "or give --policy FOLDER"
    )


def mark_latest(folder: Path) -> None:
    """Remembers `folder` as the bundle exported last among its siblings."""
    (folder.parent / LATEST).write_text(folder.name + "\n", encoding="utf-8")
