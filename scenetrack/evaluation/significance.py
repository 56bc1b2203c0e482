"""Wilson intervals, McNemar's exact test and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.stats import binom

from scenetrack.errors import DataError


@dataclass(frozen=True)
class McNemarResult:
    """Two methods on the same images.

    Attributes:
        b: images that only the first method has right.
        c: images that only the second method has right.
        p: two-sided probability of a split at least as uneven if the methods were equally good.
    """

    b: int
    c: int
    p: float


def wilson_interval(correct: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a share, which stays in [0, 1] and is good for small samples.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference,
    Journal of the American Statistical Association 22 (1927), 209-212.

    Raises:
        DataError: ``total`` is not positive.
    """
    if total <= 0:
        raise DataError(f"at least one test image is required. Received: {total} images")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = correct / total
    shrink = 1 + z**2 / total
    centre = (share + z**2 / (2 * total)) / shrink
    half = z * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)) / shrink
    # At 0 and 1 the bound is exact on paper and off by one rounding in floating point.
    low = 0.0 if correct == 0 else centre - half
    high = 1.0 if correct == total else centre + half
    return low, high


def mcnemar(labels: np.ndarray, predicted_a: np.ndarray, predicted_b: np.ndarray) -> McNemarResult:
    """Test exactly whether two methods are equally often right on the same images.

    Args:
        labels, predicted_a, predicted_b: int [N].

    Source: Q. McNemar, Note on the sampling error of the difference between correlated
    proportions or percentages, Psychometrika 12 (1947), 153-157; exact binomial form, two-sided.
    """
    right_a, right_b = predicted_a == labels, predicted_b == labels
    b = int(np.sum(right_a & ~right_b))
    c = int(np.sum(~right_a & right_b))
    tail = float(binom.cdf(min(b, c), b + c, 0.5))
    return McNemarResult(b, c, min(1.0, 2 * tail))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p values of one family of tests for their number.

    Calling a difference real where its adjusted p is at most 0.05 is wrong about any of them with
    a probability of at most 0.05, however the tests depend on each other. The smallest p is
    multiplied by the number of tests, the next by one less, and so on; none may fall below the
    one before it, and none exceeds 1.

    Args:
        p_values: of every test, in [0, 1], in any order.

    Returns:
        Adjusted p values in the same order.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal
    of Statistics 6 (1979), 65-70.
    """
    adjusted = [0.0] * len(p_values)
    least = 0.0
    smallest_first = sorted(range(len(p_values)), key=p_values.__getitem__)
    for done, place in enumerate(smallest_first):
        least = max(least, min(1.0, (len(p_values) - done) * p_values[place]))
        adjusted[place] = least
    return adjusted
