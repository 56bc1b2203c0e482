"""The logits of an image's patches as one score for each class."""

from __future__ import annotations

import numpy as np


def aggregate(logits: np.ndarray, how: str) -> np.ndarray:
    """An image's scores from its patches' logits: float32 [N, n, C] -> [N, C].

    ``mean`` and ``max`` are over the patches' logits; ``vote`` is the part of the patches whose
    largest logit is the class's.
    """
    reduced: np.ndarray
    if how == "vote":
        votes = logits.argmax(axis=2)[:, :, None] == np.arange(logits.shape[2])
        reduced = votes.mean(axis=1, dtype=np.float32)
    else:
        reduced = logits.mean(axis=1) if how == "mean" else logits.max(axis=1)
    return reduced
