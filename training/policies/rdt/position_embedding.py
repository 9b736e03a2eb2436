"""Sine-cosine position embeddings that RDT's learned ones begin with (Liu et al. 2024, RDT-1B).

One axis of n values: sines of all frequencies, then cosines. A grid shares the width out among its axes of more than
one place. Where a row holds several modalities, half of the width says which one, the other half where in it.
"""

from collections.abc import Sequence

import numpy as np

from training.policies.rdt.config import PositionEmbedding

LONGEST_PERIOD = 10_000.0


def axis_embedding(width: int, positions: int) -> np.ndarray:
    """Returns float64 (positions, width), sines before cosines."""
    frequency = LONGEST_PERIOD ** -(np.arange(width // 2) / (width / 2))
    angle = np.arange(positions)[:, None] * frequency
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)


def grid_embedding(width: int, sizes: Sequence[int]) -> np.ndarray:
    """Returns float64 (product of |sizes|, width); an axis of negative size, or of one place, is left out."""
    embedding = np.zeros((*(abs(size) for size in sizes), width))
    axes = [axis for axis, size in enumerate(sizes) if size > 1]
    share = width // max(len(axes), 1) // 2 * 2
    for number, axis in enumerate(axes):
        shape = [1] * len(sizes) + [share]
        shape[axis] = sizes[axis]
        embedding[..., number * share : (number + 1) * share] = axis_embedding(share, sizes[axis]).reshape(shape)
    return embedding.reshape(-1, width)


def modality_embedding(width: int, modalities: Sequence[PositionEmbedding], *, mark: bool) -> np.ndarray:
    """Returns float64 (sum of lengths, width) of modalities (name, length or grid).

    mark: the first half of the width says which modality; without it the whole width is for positions.
    """
    inner = width // 2 if mark else width
    marks = axis_embedding(width // 2, len(modalities))
    parts = []
    for number, (_, size) in enumerate(modalities):
        if isinstance(size, int):
            # Without positions of its own every place embeds as position 0: sines 0, cosines 1.
            places = np.broadcast_to(axis_embedding(inner, max(size, 1)), (abs(size), inner))
        else:
            places = grid_embedding(inner, size)
        parts.append(np.concatenate([np.tile(marks[number], (len(places), 1)), places], axis=1) if mark else places)
    return np.concatenate(parts)
