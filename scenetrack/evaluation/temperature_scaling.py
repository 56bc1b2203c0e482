"""Temperature scaling: from scores to probabilities, by images that were not trained on.

Guo et al., "On calibration of modern neural networks", 2017. One number leaves the order of the
classes as it is, so that label and probabilities never disagree.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenetrack.errors import ScenetrackError

# Outside them probabilities are all equal, or all 0 and 1, for scores of any use.
COLDEST, HOTTEST = 1e-3, 1e3
# Halving the range of the logarithm this often leaves less than float64 resolves.
_HALVINGS = 60


def check_finite_scores(scores: NDArray[np.floating[Any]]) -> None:
    """Raise ScenetrackError for scores that are infinite or not a number."""
    if not np.isfinite(scores).all():
        raise ScenetrackError(
            "every score must be a finite number, but some are not: the method diverged; try a "
            "lower learning rate"
        )


def softmax(scores: NDArray[np.float64], temperature: float = 1.0) -> NDArray[np.float64]:
    """Turn scores [N, C] into probabilities float64 [N, C], in [0, 1], each row summing to 1."""
    scaled = np.asarray(scores, np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def log_loss(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the mean of -log of the probability of each image's own class, in nats."""
    own = probabilities[np.arange(len(labels)), labels]
    return float(-np.mean(np.log(np.maximum(own, np.finfo(np.float64).tiny))))


def fit_temperature(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the temperature under which the labels are the most likely, in [COLDEST, HOTTEST].

    As if one image more had been seen, of no known class: so that scores without an error do not
    claim certainty (Platt, "Probabilistic outputs for support vector machines", 1999, asks for
    as much).

    Args:
        scores: float [N, C], N > 0, of images that the scores were not learnt from.
        labels: int64 [N], columns of ``scores``.

    Raises:
        ScenetrackError: a score is infinite or not a number.
    """
    check_finite_scores(scores)
    values = np.asarray(scores, np.float64)
    own = values[np.arange(len(labels)), labels].sum() + values.mean()
    low, high = np.log(COLDEST), np.log(HOTTEST)
    # The log-likelihood is concave in 1 / temperature: its slope falls through 0 once.
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        shares = softmax(values, float(np.exp(middle)))
        expected = (shares * values).sum(axis=1)
        colder_is_likelier = own > expected.sum() + expected.mean()
        low, high = (low, middle) if colder_is_likelier else (middle, high)
    return float(np.exp((low + high) / 2))
