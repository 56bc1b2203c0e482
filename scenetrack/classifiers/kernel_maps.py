"""Explicit kernel maps: memory that grows with the number of images, and not with its square.

Nystroem's method (Williams and Seeger, "Using the Nystroem method to speed up kernel machines",
2001): with landmarks L drawn from the training images, K(x, L) K(L, L)^-1/2 has about the inner
products of the kernel. One way serves all four kernels, and what comes out has the form of any
other classifier, scores = K(x, L) @ dual.T + intercept, so that it is saved and exported alike.
Vedaldi and Zisserman's maps (2012) are for the additive kernels alone, which leaves rbf and the
exponential chi2 out, make each feature three times as wide, and would need a graph of their own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scenetrack.classifiers.feature_rows import Floats, Rows, parts
from scenetrack.classifiers.kernels import kernel_matrix
from scenetrack.classifiers.svm import Float32Array

# From this many images on, kernels are approximated. The matrix of one image less has 0.8 GB.
MAPPED_FROM = 10_000
LANDMARKS = 2_000

# Added to the diagonal of K(L, L), in its mean: landmarks may be equal.
_RIDGE = 1e-6
_MAPPED_ROWS = 2048


def draw_landmarks(targets: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Choose the landmarks, int64 [LANDMARKS] ascending; all images where there are no more.

    Every class gives its share, and one image at least.

    Args:
        targets: classes, int64 [N].
        seed: draws.
    """
    rng = np.random.default_rng(seed)
    shares = np.empty(len(targets))
    for label in np.unique(targets):
        members = rng.permutation(np.flatnonzero(targets == label))
        shares[members] = np.arange(len(members)) / len(members)
    return np.sort(np.argsort(shares, kind="stable")[:LANDMARKS])


def as_landmarks(rows: Rows) -> Rows:
    """Round prepared rows to float32, so that a classifier is fitted to what it keeps."""
    return Rows(rows.ready(slice(None)).astype(np.float32))


def whitening(matrix: Floats) -> Floats:
    """Compute K(L, L)^-1/2 as float64 [m, m]: columns along the principal axes of the landmarks.

    Args:
        matrix: K(L, L), float64 [m, m].
    """
    values, axes = np.linalg.eigh(matrix)
    floor = _RIDGE * float(np.trace(matrix)) / len(matrix)
    return np.asarray(axes / np.sqrt(np.maximum(values, 0) + floor))


def mapped(compared: Floats, kernel: str, gamma: float, whiten: Floats) -> Float32Array:
    """Map rows to features in which the kernel is an inner product: float32 [N, m].

    Args:
        compared: ``kernels.compare`` of the images and the landmarks, float64 [N, m].
        kernel: one of ``config.KERNELS``.
        gamma: of the kernel.
        whiten: of ``whitening``, float64 [m, m].
    """
    result = np.empty(compared.shape, np.float32)
    for part in parts(len(compared), _MAPPED_ROWS):
        result[part] = kernel_matrix(compared[part], kernel, gamma) @ whiten
    return result
