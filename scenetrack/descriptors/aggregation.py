"""Aggregation of the logits of an image's patches to one score per class."""

from __future__ import annotations

import numpy as np


def aggregate(logits: np.ndarray, how: str) -> np.ndarray:
    """Return image scores from the logits of the patches: float32 [N, n, C] -> float64 [N, C].

    ``mean`` and ``max`` are taken over the patches' logits; ``vote`` is the share of the patches
    for which the class has the largest logit. Sums are added up in float64, as in a bundle: float32
    is 1e-4 off at 60,000 patches.
    """
    if how == "vote":
        votes = logits.argmax(axis=2)[:, :, None] == np.arange(logits.shape[2])
        return np.asarray(votes.mean(axis=1, dtype=np.float64))
    if how == "mean":
        return np.asarray(logits.mean(axis=1, dtype=np.float64))
    return np.asarray(logits.max(axis=1), np.float64)
