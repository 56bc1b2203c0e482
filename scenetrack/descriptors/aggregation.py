"""Aggregation of the logits of an image's patches to one score per class."""

from __future__ import annotations

import numpy as np


def aggregate(logits: np.ndarray, how: str) -> np.ndarray:
    """Return image scores from the logits of the patches: float32 [N, n, C] -> [N, C].

    ``mean`` and ``max`` are taken over the patches' logits; ``vote`` is the share of the patches
    for which the class has the largest logit.
    """
    reduced: np.ndarray
    if how == "vote":
        votes = logits.argmax(axis=2)[:, :, None] == np.arange(logits.shape[2])
        reduced = votes.mean(axis=1, dtype=np.float32)
    else:
        reduced = logits.mean(axis=1) if how == "mean" else logits.max(axis=1)
    return reduced
