"""What a folder holds, and what can be done with it here: read from configs and headers, no weights loaded."""

import json
from pathlib import Path
from typing import Any

import msgspec

from rehearsal.action_codec import ActionCodec
from rehearsal.bundle import MANIFEST
from rehearsal.errors import RehearsalError
from rehearsal.spec import ActionSpec
from training.policies.policy import RECORD, RUN_POLICY, Family, read_record
from training.policies.weight_headers import Tensors, read_headers

CONFIG = "config.json"
ADAPTER = "adapter_config.json"
LORA_FOLDER = "lora_adapter"
"""Where OpenVLA-OFT's training leaves an adapter, beside the merged weights or without them."""


class Verdict(msgspec.Struct, frozen=True):
    """text: the command that does it, or why it cannot be done."""

    possible: bool
    text: str

    def __str__(self) -> str:
        return f"{'yes' if self.possible else 'no'}: {self.text}"


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """kind, pictures, actions: in words. statistics: name and what it is of, one entry a dataset.

    fine_tune: SFT. reinforce: GRPO and PPO. evaluate, serve: as it is.
    """

    folder: Path
    kind: str
    tensors: Tensors
    statistics: dict[str, str]
    pictures: str
    actions: str
    fine_tune: Verdict
    reinforce: Verdict
    evaluate: Verdict
    serve: Verdict

    def __str__(self) -> str:
        rows = {
            "weights": describe(self.tensors),
            "statistics": ", ".join(f"{name} ({of})" for name, of in self.statistics.items()) or "none",
            "pictures": self.pictures,
            "actions": self.actions,
            "fine-tune": self.fine_tune,
            "reinforce": self.reinforce,
            "evaluate": self.evaluate,
            "serve": self.serve,
        }
        return "\n".join(
            [f"{self.folder}: {self.kind}", *(f"  {name:<11} {row}" for name, row in rows.items())]
        )


def describe(tensors: Tensors) -> str:
    """Returns the number of parameters, their types and the files, in words."""
    lacking = f" of {len(tensors.files) + len(tensors.missing)}; missing: {', '.join(tensors.missing)}"
    count = f"{len(tensors.files)} file{'s' * (len(tensors.files) != 1)}" + lacking * bool(tensors.missing)
    if not tensors.files:
        return count
    return f"{tensors.parameters:,} parameters, {', '.join(sorted(tensors.types))}, {count}"


def inspect_folder(folder: Path) -> Inspection:
    """Raises RehearsalError for a folder that holds none of what is known, and for damaged files."""
    if not folder.is_dir():
        raise RehearsalError(f"no such folder: {folder}")
    for place in (folder, folder / RUN_POLICY):
        if (place / RECORD).is_file():
            return _own_policy(place, folder)
    if (folder / MANIFEST).is_file():
        return _onnx_bundle(folder)
    config, tensors = read_json(folder), read_headers(folder)
    if config.get("model_type") == "openvla" and (tensors.files or tensors.missing):
        # Imported here, so that a look at another family needs none of its packages.
        from training.policies.openvla.inspection import inspect_openvla

        return inspect_openvla(folder, tensors)
    for place in (folder, folder / LORA_FOLDER):
        if (place / ADAPTER).is_file():
            return _adapter(place)
    if is_rdt(tensors):
        return _published_rdt(folder, tensors, config)
    if (folder / "checkpoints").is_dir() and config:
        raise RehearsalError(
            f"{folder} is a run that has not ended: it holds no policy yet; run its command again"
        )
    raise RehearsalError(
        f"{folder} holds nothing known; known: a policy or run of Rehearsal ({RECORD}), a bundle ({MANIFEST}), an "
        f"OpenVLA or OpenVLA-OFT checkpoint ({CONFIG} of model_type openvla with safetensors), a LoRA adapter "
        f"({ADAPTER}), an RDT checkpoint"
    )


class _AnyRecord(msgspec.Struct, frozen=True):
    """What of `policy.json` is looked at, whatever the family."""

    cell: str
    task: str
    action_spec: ActionSpec
    family: Family = "compact"
    codec: ActionCodec | None = None
    head: str = "tokens"
    chunk_steps: int = 0
    transform: dict[str, Any] = {}
    conditions: dict[str, Any] = {}


def _own_policy(place: Path, folder: Path) -> Inspection:
    """A policy's folder `place`: `folder` itself, a bundle for torch, or the policy of the run `folder`."""
    record = read_record(place, _AnyRecord)
    tensors = read_headers(place)
    seen = {**record.conditions, **record.transform}
    cameras = seen.get("cameras") or [seen[name] for name in ("external", "right", "left") if seen.get(name)]
    steps = record.codec.chunk_steps if record.codec else record.chunk_steps
    tokens = f", {record.codec.tokens} tokens" if record.codec else ""
    bundled = (place / MANIFEST).is_file()
    serve = (
        f"python deploy/serve_policy.py --policy {folder}"
        if bundled
        else (f"python training/export_policy.py --policy {folder}, then deploy/serve_policy.py")
    )
    lacking = Verdict(
        False, f"weights are missing: {', '.join(tensors.missing) or 'no file'}; copy the folder again"
    )
    whole = bool(tensors.files) and not tensors.missing
    return Inspection(
        folder=folder,
        kind=f"{'a bundle' if bundled else 'a policy'} of Rehearsal ({record.family}), {record.cell}, {record.task}",
        tensors=tensors,
        statistics=statistics_of(place, {}),
        pictures=", ".join(cameras),
        actions=f"{steps} steps x {record.action_spec.dim}{tokens}",
        fine_tune=_fine_tune(record, place) if whole else lacking,
        reinforce=_reinforce(record, folder) if whole else lacking,
        evaluate=Verdict(True, f"python training/evaluate.py --policy {folder}") if whole else lacking,
        serve=Verdict(True, serve) if whole else lacking,
    )


def _fine_tune(record: _AnyRecord, place: Path) -> Verdict:
    if record.family == "openvla":
        return Verdict(True, f"python training/sft.py --checkpoint {place}")
    command = "sft" if record.family == "compact" else "sft_diffusion"
    return Verdict(False, f"this family is trained from the beginning: python training/{command}.py")


def _reinforce(record: _AnyRecord, folder: Path) -> Verdict:
    if record.family == "rdt":
        return NO_TOKENS
    if record.head == "l1":
        return Verdict(
            False, "it acts by its L1 head, which gives no probabilities: fine-tune its action tokens first"
        )
    return Verdict(True, f"python training/grpo.py --policy {folder}")


NO_TOKENS = Verdict(False, "a diffusion policy has no action tokens, so no probabilities to raise")


def _onnx_bundle(folder: Path) -> Inspection:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        spec, name = msgspec.convert(manifest["action_spec"], ActionSpec), manifest["name"]
        cameras, steps = ", ".join(manifest["cameras"]), manifest["chunk_steps"]
    except (json.JSONDecodeError, msgspec.ValidationError, KeyError, TypeError) as error:
        raise RehearsalError(f"corrupted bundle: {folder / MANIFEST}: {error}; export it again") from None
    exported = Verdict(False, "an exported model only infers: use the policy that it was exported from")
    missing = [file for file in manifest["checksums"] if not (folder / file).is_file()]
    serve = f"python deploy/serve_policy.py --policy {folder}"
    return Inspection(
        folder=folder,
        kind=f"a bundle of Rehearsal, {name}, runs on {manifest['runtime']}",
        tensors=read_headers(folder),
        statistics={},
        pictures=cameras,
        actions=f"{steps} steps x {spec.dim}",
        fine_tune=exported,
        reinforce=exported,
        evaluate=exported,
        serve=Verdict(not missing, f"{missing[0]} is missing; copy the bundle again" if missing else serve),
    )


def _adapter(place: Path) -> Inspection:
    config = read_json(place, ADAPTER)
    base = config.get("base_model_name_or_path", "its base model")
    merge = Verdict(False, f"an adapter is no model: merge it into {base} with peft, and look at that folder")
    return Inspection(
        folder=place,
        kind=f"a LoRA adapter of rank {config.get('r', 'unknown')} for {base}",
        tensors=read_headers(place),
        statistics=statistics_of(place, {}),
        pictures="as its base model is told",
        actions="those of its base model",
        fine_tune=merge,
        reinforce=merge,
        evaluate=merge,
        serve=merge,
    )


def is_rdt(tensors: Tensors) -> bool:
    names = tensors.shapes
    return any(name.startswith("model.blocks.") for name in names) and any(
        name.startswith("lang_adaptor.") for name in names
    )


def _published_rdt(folder: Path, tensors: Tensors, config: dict[str, Any]) -> Inspection:
    load = f"python training/import_rdt.py --checkpoint {folder}, then "
    return Inspection(
        folder=folder,
        kind="RDT, a published diffusion transformer",
        tensors=tensors,
        statistics={},
        pictures="external, right wrist, left wrist, now and one step before",
        actions=f"{config.get('pred_horizon', 'unknown')} steps x {config.get('action_dim', 'unknown')} slots",
        fine_tune=Verdict(
            False, "a published RDT is evaluated and served; a small one: python training/sft_diffusion.py"
        ),
        reinforce=NO_TOKENS,
        evaluate=Verdict(True, f"{load}training/evaluate.py"),
        serve=Verdict(True, f"{load}training/export_policy.py"),
    )


def statistics_of(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    """Returns what each of a checkpoint's statistics is of; those of its config where it has no file of them."""
    path = folder / "dataset_statistics.json"
    beside = path.is_file()
    found = read_json(folder, path.name) if beside else config.get("norm_stats", {})
    try:
        return {
            name: f"{len(part.get('action', {}).get('mean', []))} actions, "
            f"{len(part.get('proprio', {}).get('mean', []))} state values"
            for name, part in found.items()
        }
    except (AttributeError, TypeError):
        place = path if beside else f"norm_stats in {folder / CONFIG}"
        raise RehearsalError(
            f"{place}: no statistics of datasets; copy it from the checkpoint again"
        ) from None


def read_json(folder: Path, name: str = CONFIG) -> dict[str, Any]:
    """Returns a JSON file's object, empty where there is no file."""
    path = folder / name
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RehearsalError(f"{path} is no JSON: {error}; copy it again") from None
    return found if isinstance(found, dict) else {}
