"""Trajectories as flat arrays: one row a frame (a decision of the policy), one entry a trajectory.

Pictures stay uint8 and exist at chunk boundaries only; an update flattens many trajectories into one batch of
frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PER_FRAME = ("tokens", "log_probs", "trajectory", "chunk")
PER_TRAJECTORY = ("seed", "success", "steps", "policy_step")


@dataclass(frozen=True, kw_only=True)
class Trajectories:
    """N trajectories of F frames in all.

    Of a frame: inputs, the model's by name, each (F, ...), pictures as uint8; tokens int64 (F, K, A); log_probs
    float32 (F, K, A), of the policy and temperature that sampled; trajectory int64 (F,), the index of its
    trajectory; chunk int64 (F,), its number within it.
    Of a trajectory: seed int64 (N,), its scenario's; success bool (N,); steps int64 (N,), control steps up to and
    including the finish; policy_step int64 (N,), the learner's step that sampled it.
    """

    inputs: dict[str, np.ndarray]
    tokens: np.ndarray
    log_probs: np.ndarray
    trajectory: np.ndarray
    chunk: np.ndarray
    seed: np.ndarray
    success: np.ndarray
    steps: np.ndarray
    policy_step: np.ndarray

    def __len__(self) -> int:
        return len(self.success)

    @property
    def frames(self) -> int:
        return len(self.trajectory)

    @property
    def rewards(self) -> np.ndarray:
        """The binary outcome, float64 (N,)."""
        return self.success.astype(np.float64)

    def rows(self, indices: Sequence[int] | np.ndarray | np.integer) -> np.ndarray:
        """Returns the frames, int64, of the trajectories named, or of one; a trajectory's own stay in order."""
        order = np.argsort(self.trajectory, kind="stable")
        start = np.concatenate([[0], np.cumsum(np.bincount(self.trajectory, minlength=len(self)))])
        return np.concatenate([order[:0], *(order[start[i] : start[i + 1]] for i in np.atleast_1d(indices))])

    def select(self, indices: Sequence[int] | np.ndarray) -> "Trajectories":
        """Returns the trajectories named, renumbered in that order; a trajectory's frames stay in order."""
        chosen = np.asarray(indices, dtype=np.int64)
        rows = self.rows(chosen)
        count = np.bincount(self.trajectory, minlength=len(self))
        values = {name: getattr(self, name)[rows] for name in PER_FRAME}
        values |= {name: getattr(self, name)[chosen] for name in PER_TRAJECTORY}
        values["trajectory"] = np.repeat(np.arange(len(chosen)), count[chosen])
        return Trajectories(inputs={name: rows_of[rows] for name, rows_of in self.inputs.items()}, **values)

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns all arrays by name, the inputs' with `inputs.` before it; `from_arrays` takes them back."""
        flat = {name: getattr(self, name) for name in PER_FRAME + PER_TRAJECTORY}
        return flat | {f"inputs.{name}": array for name, array in self.inputs.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "Trajectories":
        inputs = {name.removeprefix("inputs."): a for name, a in arrays.items() if name.startswith("inputs.")}
        return cls(inputs=inputs, **{name: arrays[name] for name in PER_FRAME + PER_TRAJECTORY})


def concatenate(parts: Sequence[Trajectories]) -> Trajectories:
    """Returns all trajectories of `parts`, at least one part, in order."""
    if len(parts) == 1:
        return parts[0]
    offsets = np.cumsum([0, *(len(part) for part in parts[:-1])])
    values = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in PER_FRAME + PER_TRAJECTORY
    }
    shifted = [part.trajectory + offset for part, offset in zip(parts, offsets, strict=True)]
    values["trajectory"] = np.concatenate(shifted)
    inputs = {name: np.concatenate([part.inputs[name] for part in parts]) for name in parts[0].inputs}
    return Trajectories(inputs=inputs, **values)
