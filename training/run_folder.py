"""The folder of one training run: what was asked, the curve, the checkpoints and the policy.

It holds config.json (the config whole, with command, commit, machine and versions), curve.jsonl (one
line a step that logged something), tensorboard/, checkpoints/ and policy/. The same command run again goes on from
the last checkpoint; another config is refused, so that a curve belongs to one config.
"""

import json
import math
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
from torch.utils.tensorboard import SummaryWriter

from rehearsal.config import convert, plain
from rehearsal.errors import RehearsalError
from rehearsal.results import provenance
from training.checkpoint import load_checkpoint, save_checkpoint
from training.engine.channel import Channel
from training.policies.policy import RUN_POLICY, Policy, write_record

# What may differ when a run goes on: it changes how the run is watched and how fast it is, not what it learns.
FREE = ("threads", "device", "loop.checkpoint_every", "loop.keep_checkpoints")

CONFIG, CURVE = "config.json", "curve.jsonl"


class RunFolder:
    """Use as a context manager; `state` is that of the last checkpoint, or None in a new run.

    leads: whether this process is the one that tells how the run stands.
    """

    leads = True
    state: dict[str, Any] | None

    def __init__(self, path: Path, config: msgspec.Struct, free: Collection[str] = FREE) -> None:
        """Raises RehearsalError when `path` holds a run whose config differs in more than the keys `free`."""
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self.config = plain(config)
        self.provenance = provenance()
        self._write_config(type(config), free)
        self.state = load_checkpoint(path / "checkpoints")
        self._cut_curve(self.step)
        self._curve = (path / CURVE).open("a", encoding="utf-8")
        self._board = SummaryWriter(str(path / "tensorboard"), purge_step=self.step + 1 if self.step else None)

    @property
    def step(self) -> int:
        """The step of the last checkpoint; 0 in a new run."""
        return int(self.state["step"]) if self.state else 0

    @property
    def record(self) -> dict[str, Any]:
        """What a policy's history keeps of this run."""
        return {"run": self.path.name, **self.provenance, "config": self.config}

    def log(self, step: int, scalars: dict[str, float]) -> None:
        """Adds a line to the curve and to TensorBoard; values that are not finite are left out."""
        finite = {name: value for name, value in scalars.items() if math.isfinite(value)}
        self._curve.write(json.dumps({"step": step, **finite}) + "\n")
        self._curve.flush()
        for name, value in finite.items():
            self._board.add_scalar(name, value, step)

    def save_checkpoint(self, step: int, state: dict[str, Any], keep: int) -> None:
        save_checkpoint(self.path / "checkpoints", step, state, keep)

    def save_policy(self, policy: Policy) -> Path:
        """Writes the policy with this run added to its history; returns its folder."""
        record = msgspec.structs.replace(policy.record, history=(*policy.record.history, self.record))
        partial, folder = self.path / f".{RUN_POLICY}.partial", self.path / RUN_POLICY
        shutil.rmtree(partial, ignore_errors=True)
        policy.save(partial)
        write_record(partial, record)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
        return folder

    def close(self) -> None:
        self._curve.close()
        self._board.close()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write_config(self, kind: type[msgspec.Struct], free: Collection[str]) -> None:
        path = self.path / CONFIG
        if path.is_file():
            before = _with_defaults(json.loads(path.read_text(encoding="utf-8"))["config"], kind)
            differing = _differences(before, json.loads(json.dumps(self.config))) - set(free)
            if differing:
                raise RehearsalError(
                    f"{self.path} holds a run with another {', '.join(sorted(differing))}; give another --out, or "
                    "remove that folder"
                )
        text = json.dumps({**self.provenance, "config": self.config}, indent=2) + "\n"
        partial = path.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)

    def _cut_curve(self, step: int) -> None:
        """Drops what an interrupted run logged after its last checkpoint: those steps come again."""
        path = self.path / CURVE
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            path.write_text("".join(kept) if self.state else "", encoding="utf-8")


class Follower(RunFolder):
    """The run's folder as the learner's other processes see it: they go on from its state and write nothing."""

    leads = False

    def __init__(self, path: Path, state: dict[str, Any] | None) -> None:
        self.path = path
        self.state = state

    def log(self, step: int, scalars: dict[str, float]) -> None:
        pass

    def save_checkpoint(self, step: int, state: dict[str, Any], keep: int) -> None:
        pass

    def save_policy(self, policy: Policy) -> Path:
        return self.path / RUN_POLICY

    def close(self) -> None:
        pass


def open_run(path: Path, config: msgspec.Struct, channel: Channel, free: Collection[str] = FREE) -> RunFolder:
    """Returns the folder in the first process and a `Follower` in the others, whose state is without weights."""
    own: list[RunFolder] = []

    def read() -> dict[str, Any]:
        own.append(RunFolder(path, config, free))
        return {"state": None if own[0].state is None else without_weights(own[0].state)}

    state = channel.lead(read)["state"]
    return own[0] if own else Follower(path, state)


def without_weights(state: dict[str, Any]) -> dict[str, Any]:
    """Returns a checkpoint's state with None for weights and optimisers, which engines hand out themselves."""
    kept: dict[str, Any] = {}
    for name, value in state.items():
        if name in ("model", "optimiser", "reference"):
            kept[name] = None
        else:
            kept[name] = without_weights(value) if isinstance(value, dict) else value
    return kept


def _with_defaults(config: dict[str, Any], kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Returns a saved config with the defaults of options that came after it was saved."""
    try:
        return json.loads(json.dumps(plain(convert(config, kind, source=CONFIG))))
    except RehearsalError:
        return config  # one of another command, or with an option that is gone: it differs as it stands


def _differences(before: Any, now: Any, path: str = "") -> set[str]:
    """Returns the dotted names of what differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        names = before.keys() | now.keys()
        return set().union(*(_differences(before.get(n), now.get(n), f"{path}.{n}".lstrip(".")) for n in names))
    return set() if before == now else {path}


def read_curve(path: Path) -> list[dict[str, float]]:
    """Returns the lines of a run's curve."""
    return [json.loads(line) for line in (path / CURVE).read_text(encoding="utf-8").splitlines()]
