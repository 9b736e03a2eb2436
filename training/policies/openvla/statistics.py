"""A checkpoint's `dataset_statistics.json`: how its numbers in [-1, 1] are the robot's, and back.

Actions are 255 equal intervals of the range [low, high], for which there are 256 tokens: the last one stands for a
value at the very end and decodes like the one before. LIBERO's range is q01 to q99 and leaves the gripper as it is,
which a control step then makes -1 (open) or 1 (closed); ALOHA's and RoboTwin's is minimum to maximum of every value.
"""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from rehearsal.action_codec import ActionCodec
from rehearsal.errors import RehearsalError, unknown_choice
from rehearsal.spec import ActionSpec
from training.imitation.demonstration_set import DemonstrationSet
from training.policies.openvla.config import ACTION_BINS
from training.policies.openvla.options import Bounds

STATISTICS = "dataset_statistics.json"
# Added to a range when it is undone, so that a value that never varied has one; OpenVLA-OFT's, not OpenVLA's.
RANGE_FLOOR = 1e-8

OTHER_DATASET = (
    "take those of the dataset that the checkpoint was trained on, for this robot; "
    "python training/inspect_checkpoint.py lists its datasets"
)

_KEYS: dict[Bounds, tuple[str, str]] = {"q99": ("q01", "q99"), "extremes": ("min", "max")}


class _Dataset(msgspec.Struct, frozen=True):
    """What of one dataset's statistics must be there: a list of one entry a value under each name."""

    action: dict[str, list[float | bool]]
    proprio: dict[str, list[float | bool]] = {}


class StateBounds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """lower, upper: (S,), what becomes -1 and 1; beyond it a state is clipped."""

    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def normalise(self, state: np.ndarray) -> np.ndarray:
        """Returns float32 (..., S) in [-1, 1]."""
        lower, upper = np.asarray(self.lower), np.asarray(self.upper)
        return np.clip(2 * (state - lower) / (upper - lower + RANGE_FLOOR) - 1, -1, 1).astype(np.float32)


def read_statistics(folder: Path, key: str | None) -> tuple[str, dict[str, Any]]:
    """Returns the statistics of `key`, of the only one there when None, with their name.

    Raises RehearsalError when there are none, or several and none named, and when they are of another layout.
    """
    path = folder / STATISTICS
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        config = folder / "config.json"
        found = (
            json.loads(config.read_text(encoding="utf-8")).get("norm_stats", {}) if config.is_file() else {}
        )
        if not found:
            raise RehearsalError(f"{folder} has no {STATISTICS}: copy it from the checkpoint") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RehearsalError(f"{path} is no JSON: {error}; copy it again") from None
    if not isinstance(found, dict) or not found:
        raise RehearsalError(f"{path} names no dataset: copy it from the checkpoint again")
    if key is None and len(found) > 1:
        raise RehearsalError(f"{path} holds statistics of several datasets; name one of: {', '.join(found)}")
    chosen = next(iter(found)) if key is None else key
    if chosen not in found:
        raise unknown_choice(f"dataset in {path}:", chosen, found)
    try:
        msgspec.convert(found[chosen], _Dataset)
    except msgspec.ValidationError as error:
        raise RehearsalError(
            f"{path}: {chosen!r} is no statistics of a dataset: {error}; copy it again"
        ) from None
    return chosen, found[chosen]


def action_codec(
    statistics: dict[str, Any],
    spec: ActionSpec,
    chunk_steps: int,
    *,
    bounds: Bounds,
    floor: float = RANGE_FLOOR,
) -> ActionCodec:
    """Returns the codec that decodes a checkpoint's tokens to actions of `spec`.

    Raises RehearsalError when the statistics are another robot's. Where they leave a gripper as it is, 0 is closed
    and 1 open, and the command is one of the spec's bounds. A value that never varied has a range even without `floor`.
    """
    action = statistics["action"]
    lower, upper = _range(action, bounds, "action")
    mask = np.asarray(action.get("mask", [True] * len(lower)), dtype=bool)
    if {len(lower), len(upper), len(mask)} != {spec.dim}:
        raise RehearsalError(
            f"the statistics are of {len(lower)} action values, this robot has {spec.dim} ({', '.join(spec.names)}): "
            f"{OTHER_DATASET}"
        )
    if odd := [name for name, kept, own in zip(spec.names, mask, spec.grippers) if not kept and not own]:
        raise RehearsalError(
            f"the statistics leave {', '.join(odd)} as it is, which a gripper alone can be: {OTHER_DATASET}"
        )
    # Left as it is: -1 to 1 is decoded to itself, of which 0.5 parts closed from open.
    upper = upper + np.where(upper > lower, floor, RANGE_FLOOR)
    lower, upper = np.where(mask, lower, -1.0), np.where(mask, upper, 1.0)
    return ActionCodec(
        chunk_steps=chunk_steps,
        knots=chunk_steps,
        bins=ACTION_BINS,
        intervals=ACTION_BINS - 1,
        lower=tuple(lower.tolist()),
        upper=tuple(upper.tolist()),
        relative=(False,) * spec.dim,
        hold=spec.mode == "delta",
        switch=tuple(bool(not kept) for kept in mask),
        switch_low=tuple((spec.upper if spec.gripper_sign < 0 else spec.lower)[i] for i in range(spec.dim)),
        switch_high=tuple((spec.lower if spec.gripper_sign < 0 else spec.upper)[i] for i in range(spec.dim)),
    )


def state_bounds(statistics: dict[str, Any], state_dim: int, *, bounds: Bounds) -> StateBounds:
    """Returns what normalises the state; raises RehearsalError when the statistics are another robot's."""
    lower, upper = _range(statistics.get("proprio", {}), bounds, "state")
    if {len(lower), len(upper)} != {state_dim}:
        raise RehearsalError(
            f"the statistics are of {len(lower)} state values, this robot's state has {state_dim}: {OTHER_DATASET}"
        )
    return StateBounds(lower=tuple(lower.tolist()), upper=tuple(upper.tolist()))


def _range(part: dict[str, Any], bounds: Bounds, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns what is -1 and what is 1, one entry a value each; raises RehearsalError when it is not there."""
    if missing := [name for name in _KEYS[bounds] if name not in part]:
        raise RehearsalError(
            f"the statistics have no {missing[0]} of the {what}, which bounds = {bounds!r} needs; they have: "
            f"{', '.join(part) or 'nothing of it'}"
        )
    lower, upper = (np.asarray(part[name], dtype=np.float64) for name in _KEYS[bounds])
    return lower, upper


def dataset_statistics(demonstrations: DemonstrationSet, spec: ActionSpec, name: str) -> dict[str, Any]:
    """Returns the statistics of demonstrations in the published layout, under `name`.

    Grippers whose command is one of two bounds are kept out of normalising and stand as 0 (closed) and 1 (open).
    """
    actions = demonstrations.actions.reshape(-1, spec.dim).astype(np.float64)
    mask = ~switching(spec)
    opened = np.asarray(spec.lower if spec.gripper_sign < 0 else spec.upper)
    actions = np.where(mask, actions, np.isclose(actions, opened).astype(np.float64))
    return {
        name: {
            "action": _summary(actions) | {"mask": mask.tolist()},
            "proprio": _summary(demonstrations.state.astype(np.float64)),
            "num_transitions": len(demonstrations),
            "num_trajectories": len(np.unique(demonstrations.episode)),
        }
    }


def switching(spec: ActionSpec) -> np.ndarray:
    """Returns bool (A,): grippers that are only ever commanded to one of two bounds."""
    return np.array([own and unit == "sign" for own, unit in zip(spec.grippers, spec.units, strict=True)])


def _summary(values: np.ndarray) -> dict[str, list[float]]:
    """values: (N, D)."""
    low, high = np.quantile(values, [0.01, 0.99], axis=0)
    found = {
        "mean": values.mean(axis=0), "std": values.std(axis=0), "max": values.max(axis=0), "min": values.min(axis=0),
        "q01": low, "q99": high,
    }  # fmt: skip
    return {name: value.tolist() for name, value in found.items()}


def write_statistics(folder: Path, statistics: dict[str, Any]) -> None:
    (folder / STATISTICS).write_text(json.dumps(statistics, indent=2) + "\n", encoding="utf-8")
