"""The run behind `python training/inspect_checkpoint.py`."""

from pathlib import Path

import msgspec
import tyro

from training.policies.inspection import inspect_folder


class InspectCheckpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `python training/inspect_checkpoint.py`."""

    folder: tyro.conf.Positional[Path]
    """A policy, run, bundle, published checkpoint or adapter."""
    demonstrations: Path | None = None
    """A dataset of the policy's task, to try whether its action tokens were ever trained; loads the weights."""
    episodes: int = 1
    """Demonstrations of it that are looked at."""


def inspect_checkpoint(config: InspectCheckpoint) -> str:
    """Returns what the folder holds; raises RehearsalError for tokens that were never trained."""
    lines = [str(inspect_folder(config.folder))]
    if config.demonstrations is not None:
        # Imported here, so that a look at headers does not wait for what runs a policy.
        from training.policies.token_trial import try_tokens

        found = try_tokens(config.folder, config.demonstrations, config.episodes)
        found.check(config.folder)
        lines.append(f"  {'tokens':<11} trained: {found}")
    return "\n".join(lines)
