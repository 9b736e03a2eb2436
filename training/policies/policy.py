"""What a policy of any family is to evaluation, export and server, and how a folder becomes one again.

A policy's folder holds its model and `policy.json`, whose `family` says what kind of model it is.
"""

from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import msgspec
import numpy as np
import torch

from rehearsal.bundle import Decoding
from rehearsal.errors import RehearsalError
from rehearsal.simulation import ObservationBatch
from rehearsal.spec import ActionSpec

RECORD = "policy.json"
RUN_POLICY = "policy"
"""Name of the policy's folder within a run's folder."""

Family = Literal["compact", "openvla", "rdt"]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="family"):
    """What `policy.json` holds in every family. `history`: one record a training run, the first one first."""

    cell: str
    task: str
    action_spec: ActionSpec
    history: tuple[dict[str, Any], ...] = ()


class Policy(Protocol):
    """Anything that can be evaluated and served.

    cameras, side_px: the pictures it wants, in its order, and the side that a simulator shall draw them with.
    state_dim: values of the measured state that it reads. chunk_steps: T, control steps a decision.
    """

    @property
    def record(self) -> Record: ...

    @property
    def cameras(self) -> tuple[str, ...]: ...

    @property
    def side_px(self) -> int: ...

    @property
    def state_dim(self) -> int: ...

    @property
    def chunk_steps(self) -> int: ...

    def act(self, batch: ObservationBatch, decoding: Decoding = "argmax") -> np.ndarray:
        """Returns the actions float32 (B, T, A) that would be served, within the spec's bounds."""
        ...

    def to(self, device: str) -> None:
        """Moves the model to `cpu`, `cuda` or one of several `cuda:N`."""
        ...

    def reset(self) -> None:
        """Forgets what is kept between calls; called before episodes."""
        ...

    def save(self, folder: Path) -> None:
        """Writes model and record; `policy.json` last, so that a reader never sees half of a policy."""
        ...


RecordT = TypeVar("RecordT", bound=msgspec.Struct)


class AnyFamily(msgspec.Struct):
    """What can be read of every record before its family is known."""

    task: str
    family: Family = "compact"


def policy_folder(folder: Path) -> Path:
    """Returns the folder that holds `policy.json`: `folder` or, of a run, the one below it.

    Raises RehearsalError when there is none.
    """
    for place in (folder, folder / RUN_POLICY):
        if (place / RECORD).is_file():
            return place
    raise RehearsalError(f"no trained policy in {folder}: {RECORD} is missing; make one: python training/sft.py")


def load_policy(folder: Path) -> Policy:
    """Reads a folder that `save` wrote, or the policy of a run's folder; raises RehearsalError when it is neither."""
    # Imported here, so that a family's packages are needed by its users alone.
    place = policy_folder(folder)
    family = read_record(place, AnyFamily).family
    if family == "openvla":
        from training.policies.openvla.policy import load_openvla

        return load_openvla(place)
    if family == "rdt":
        from training.policies.rdt.policy import load_rdt_policy

        return load_rdt_policy(place)
    from training.policies.trained_policy import load_compact

    return load_compact(place)


def read_record(folder: Path, kind: type[RecordT]) -> RecordT:
    """Reads `policy.json` of a policy's folder; raises RehearsalError when it is not what `kind` says."""
    path = folder / RECORD
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise RehearsalError(f"{path}: {error}; train the policy again") from None


def choose_device(name: str) -> str:
    """Returns `name`, or for auto a GPU where torch finds one; raises RehearsalError when there is no such device."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise RehearsalError(f"device {name!r} cannot be used: {reason}; valid: auto, cpu, cuda, cuda:N") from None
    return name


def write_record(folder: Path, record: Record) -> None:
    (folder / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
