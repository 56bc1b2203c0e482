"""Expected calibration error: confidence against accuracy in bins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# As in Guo et al. 2017, so that figures can be laid beside published ones.
BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Images by the confidence of their prediction, in bins of equal width from 0 to 1.

    Attributes:
        counts: int64 [B], images in each bin.
        confidence: float64 [B], mean probability of the predicted class; 0 in an empty bin.
        accuracy: float64 [B], share of right predictions; 0 in an empty bin.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def ece(self) -> float:
        """Expected calibration error, in [0, 1]: the mean distance of confidence and accuracy.

        Each bin weighs as much as it has images (Guo et al. 2017, equation 3). It is 0 for
        perfect probabilities only in the limit of many images; of few it is a little above.
        """
        gaps = np.abs(self.accuracy - self.confidence)
        return float((self.counts * gaps).sum() / self.counts.sum())


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> Reliability:
    """Sort predictions into bins (k / bins, (k + 1) / bins]; a confidence of 0 goes to the first.

    Args:
        confidence: float [N], N > 0, probability of each predicted class, in [0, 1].
        right: bool [N], whether it is the image's class.
        bins: number of bins.

    Source: M. P. Naeini, G. F. Cooper and M. Hauskrecht, Obtaining well calibrated probabilities
    using Bayesian binning, AAAI 2015; C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, On
    calibration of modern neural networks, ICML 2017, section 2.
    """
    confidence = np.asarray(confidence, np.float64)
    inner_edges = np.arange(1, bins) / bins
    places = np.searchsorted(inner_edges, confidence, side="left")
    counts = np.bincount(places, minlength=bins)
    images = np.maximum(counts, 1)
    return Reliability(
        counts=counts,
        confidence=np.bincount(places, confidence, bins) / images,
        accuracy=np.bincount(places, np.asarray(right, np.float64), bins) / images,
    )
