"""A policy's action tokens, tried on demonstrations."""

from pathlib import Path

import numpy as np

from rehearsal.errors import RehearsalError
from training.imitation.load_demonstrations import load_demonstrations
from training.imitation.sft import encode
from training.policies.openvla.token_head import TokenHead, judge_token_head
from training.policies.policy import RECORD, policy_folder
from training.policies.trained_policy import TrainedPolicy, load_token_policy

FRAMES_A_FORWARD = 8


def try_tokens(folder: Path, demonstrations: Path, episodes: int) -> TokenHead:
    """Judges a policy's action tokens by demonstrations; raises RehearsalError when it has none."""
    try:
        place = policy_folder(folder)
    except RehearsalError:
        raise RehearsalError(
            f"{folder} has no {RECORD}, which says what its tokens mean: import it first: "
            f"python training/import_openvla.py --checkpoint {folder}"
        ) from None
    return judge_tokens(load_token_policy(place), demonstrations, episodes)


def judge_tokens(policy: TrainedPolicy, demonstrations: Path, episodes: int) -> TokenHead:
    """Judges a policy's action tokens by the first `episodes` demonstrations of a dataset."""
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
