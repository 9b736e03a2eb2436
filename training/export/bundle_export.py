"""Exports a policy as a bundle: as an ONNX model where it is a compact one, else as the policy's folder for torch."""

import os
import shutil
from pathlib import Path
from typing import Any

import msgspec

from rehearsal.bundle import FORMAT, BundleManifest, Decoding, mark_latest, write_manifest
from training.export.onnx_export import export_onnx
from training.policies.policy import RECORD, Policy
from training.policies.trained_policy import PolicyRecord, TrainedPolicy

ONNX_FILE = "policy.onnx"


def export_bundle(policy: Policy, folder: Path, *, decoding: Decoding = "argmax") -> BundleManifest:
    """Writes the bundle `folder`, in the place of one of that name, and marks it as the one exported last.

    Raises RehearsalError, and leaves what was there, when an exported model does not agree with torch.
    """
    partial = folder.parent / f".{folder.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        manifest = _write(policy, partial, folder.name, decoding)
    except BaseException:
        shutil.rmtree(partial)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    mark_latest(folder)
    return manifest


def _write(policy: Policy, folder: Path, name: str, decoding: Decoding) -> BundleManifest:
    record = policy.record
    own: dict[str, Any] = {"runtime": "torch", "model_file": RECORD}
    training: dict[str, Any] = {"runs": list(record.history)}
    if isinstance(policy, TrainedPolicy) and isinstance(record, PolicyRecord):
        training["parity"] = msgspec.to_builtins(export_onnx(policy, folder / ONNX_FILE))
        own = {"runtime": "onnx", "model_file": ONNX_FILE, "codec": record.codec, "transform": record.transform}
    else:
        policy.save(folder)
    return write_manifest(
        folder,
        BundleManifest(
            format=FORMAT,
            name=name,
            cell=record.cell,
            task=record.task,
            action_spec=record.action_spec,
            cameras=policy.cameras,
            side_px=policy.side_px,
            chunk_steps=policy.chunk_steps,
            decoding=decoding,
            training=training,
            checksums={},
            **own,
        ),
    )
