"""Exports a trained policy as a bundle with an ONNX model, and refuses to write one that differs from torch.

The exported graph holds everything after the input transform, the scaling of uint8 pictures included; its batch
axis is free. Parity is measured before the bundle appears: logits of random inputs by torch and by ONNX Runtime on
the CPU may differ by 1e-4, absolutely where a logit is within +-1 and relative to it beyond, because the ordinal
head's logits grow with the square of the distance to the mean, to 1e4 and more, where float32 has no 1e-4 left.
"""

import logging
import os
import shutil
import warnings
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import torch

from rehearsal.bundle import FORMAT, BundleManifest, mark_latest, write_manifest
from rehearsal.errors import RehearsalError
from training.policies.compact import CompactPolicy
from training.policies.token_distribution import Decoding
from training.policies.trained_policy import TrainedPolicy, to_tensors

MODEL_FILE = "policy.onnx"
TOLERANCE = 1e-4
# Enough frames for thousands of logits of every knot and dimension; 1 and more, since kernels differ by batch size.
PARITY_BATCHES = (1, 16)


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """How far ONNX Runtime is from torch.

    logits: largest difference, divided by the larger of 1 and the logit's magnitude. probabilities: largest
    absolute difference. tokens: greedy tokens that differ though torch's two likeliest bins are no tie.
    """

    logits: float
    probabilities: float
    tokens: int


def export_bundle(policy: TrainedPolicy, folder: Path, *, decoding: Decoding = "argmax") -> Parity:
    """Writes the bundle `folder`, in the place of one of that name, and marks it as the one exported last.

    Raises RehearsalError, and leaves what was there, when the exported model does not agree with torch.
    """
    partial = folder.parent / f".{folder.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model = policy.model.eval().cpu()
    write_onnx(model, example_inputs(policy, 2, seed=0), partial / MODEL_FILE)
    parity = measure_parity(policy, partial / MODEL_FILE)
    if not (parity.logits <= TOLERANCE and parity.tokens == 0):
        shutil.rmtree(partial)
        raise RehearsalError(
            f"not exported: {MODEL_FILE} differs from torch by {parity.logits:.2g} in its logits (at most "
            f"{TOLERANCE:g}) and in {parity.tokens} tokens (at most 0); try another version of torch or onnxruntime"
        )
    record = policy.record
    manifest = BundleManifest(
        format=FORMAT,
        name=folder.name,
        cell=record.cell,
        task=record.task,
        model_file=MODEL_FILE,
        runtime="onnx",
        action_spec=record.action_spec,
        codec=record.codec,
        transform=record.transform,
        decoding=decoding,
        training={"runs": list(record.history), "parity": msgspec.to_builtins(parity)},
        checksums={},
    )
    write_manifest(partial, manifest)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    mark_latest(folder)
    return parity


def write_onnx(model: CompactPolicy, inputs: dict[str, np.ndarray], path: Path) -> None:
    """Writes `model` as ONNX with inputs by name, a free batch axis and one output, `logits`."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    with warnings.catch_warnings():
        # torch warns of its own internals; what matters is measured afterwards.
        warnings.simplefilter("ignore")
        exporter.setLevel(logging.ERROR)
        program = torch.onnx.export(
            model,
            (),
            kwargs=to_tensors(inputs),
            input_names=list(inputs),
            output_names=["logits"],
            dynamic_shapes={name: {0: batch} for name in inputs},
            dynamo=True,
            verbose=False,
        )
    exporter.setLevel(level)
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    program.save(str(path))


def measure_parity(policy: TrainedPolicy, path: Path) -> Parity:
    """Compares the model file with the policy on random inputs."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    logits, probabilities, tokens = 0.0, 0.0, 0
    for seed, size in enumerate(PARITY_BATCHES, start=1):
        inputs = example_inputs(policy, size, seed)
        expected = policy.logits(inputs).double()
        found = torch.from_numpy(session.run(["logits"], inputs)[0]).double()
        logits = max(logits, float(((found - expected).abs() / expected.abs().clamp(min=1)).max()))
        probabilities = max(probabilities, float((found.softmax(-1) - expected.softmax(-1)).abs().max()))
        # A Gaussian's mean halfway between two bins is a tie that rounding decides: either token is right.
        behind = expected.amax(-1) - expected.gather(-1, found.argmax(-1, keepdim=True)).squeeze(-1)
        tokens += int((behind > TOLERANCE).sum())
    return Parity(logits=logits, probabilities=probabilities, tokens=tokens)


def example_inputs(policy: TrainedPolicy, size: int, seed: int) -> dict[str, np.ndarray]:
    """Returns random inputs of the policy's shapes: blocks of random colour with noise, states, instructions."""
    transform, rng = policy.record.transform, np.random.default_rng([seed, size])
    cameras, side = len(transform.cameras), transform.side_px
    blocks = rng.integers(0, 256, (size, cameras, side // 8, side // 8, 3)).repeat(8, axis=2).repeat(8, axis=3)
    noise = rng.integers(-20, 21, (size, cameras, side, side, 3))
    return {
        "images": (blocks + noise).clip(0, 255).astype(np.uint8),
        "state": rng.standard_normal((size, len(transform.state_mean))).astype(np.float32),
        "text": rng.integers(0, transform.text_buckets, (size, transform.text_length)),
    }
