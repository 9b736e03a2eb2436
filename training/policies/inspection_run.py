"""The run behind `python training/inspect_checkpoint.py`."""

from pathlib import Path

import msgspec
import numpy as np
import tyro

from rehearsal.errors import RehearsalError
from training.imitation.load_demonstrations import load_demonstrations
from training.imitation.sft import encode
from training.policies.inspection import inspect_folder
from training.policies.openvla.token_head import TokenHead, judge_token_head
from training.policies.policy import RECORD, policy_folder
from training.policies.trained_policy import load_token_policy

FRAMES_A_FORWARD = 8


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
        found = try_tokens(config.folder, config.demonstrations, config.episodes)
        found.check(config.folder)
        lines.append(f"  {'tokens':<11} trained: {found}")
    return "\n".join(lines)


def try_tokens(folder: Path, demonstrations: Path, episodes: int) -> TokenHead:
    """Judges a policy's action tokens by demonstrations; raises RehearsalError when it has none."""
    try:
        place = policy_folder(folder)
    except RehearsalError:
        raise RehearsalError(
            f"{folder} has no {RECORD}, which says what its tokens mean: import it first: "
            f"python training/import_openvla.py --checkpoint {folder}"
        ) from None
    policy = load_token_policy(place)
    data = encode(
        policy,
        load_demonstrations(
            demonstrations,
            cameras=policy.cameras,
            side_px=policy.side_px,
            chunk_steps=policy.chunk_steps,
            stride_steps=policy.chunk_steps,
            episodes=episodes,
            spec=policy.record.action_spec,
        ),
    )
    tokens = data.pop("tokens")
    logits = [
        policy.logits({name: array[start : start + FRAMES_A_FORWARD] for name, array in data.items()})
        .cpu()
        .numpy()
        for start in range(0, len(tokens), FRAMES_A_FORWARD)
    ]
    return judge_token_head(np.concatenate(logits), tokens)
