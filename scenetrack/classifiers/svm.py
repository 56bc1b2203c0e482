"""One-vs-rest SVM solvers: with a kernel matrix, and on mapped features.

With the kernel's matrix of all images: scikit-learn's SVC. On mapped features, which stand in for
a kernel where images are many: a Newton method for all classes at once. Both minimise
|w|^2 / 2 + C * sum of the losses; the first loss is max(0, 1 - y f), the second its square.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.svm import SVC

from scenetrack.classifiers.feature_rows import Floats

Float32Array: TypeAlias = NDArray[np.float32]

# Of the gradient at w = 0 remains at most this share of its length, as scikit-learn asks for.
_TOLERANCE = 1e-4
# Seldom more than 10 steps, of which each is solved to a tenth: the next one starts anew anyway.
_NEWTON_STEPS, _CONJUGATE_STEPS, _SOLVED_TO = 50, 50, 0.1
_HALVINGS = 20
_TINY = float(np.finfo(np.float32).tiny)


def kernel_machines(matrix: Floats, targets: NDArray[np.int64], c: float) -> tuple[Floats, Floats]:
    """Train each class against the others, with the hinge loss.

    Args:
        matrix: the kernel, float64 [N, N].
        targets: classes, int64 [N], 0 to n_classes - 1.
        c: penalty of a margin violation.

    Returns:
        dual float64 [n_classes, N] and intercept float64 [n_classes].
    """
    count = int(targets.max()) + 1
    dual, intercept = np.zeros((count, len(targets))), np.zeros(count)
    # The matrix was made from checked features; checking it again costs as much as a fit.
    with config_context(assume_finite=True):
        for label in range(count):
            machine = SVC(C=c, kernel="precomputed").fit(matrix, targets == label)
            dual[label, machine.support_] = machine.dual_coef_[0]
            intercept[label] = machine.intercept_[0]
    return dual, intercept


def mapped_machines(
    rows: Float32Array, targets: NDArray[np.int64], c: float, start: Float32Array | None = None
) -> Float32Array:
    """Train each class against the others, with the squared hinge loss.

    Newton steps, each solved by conjugate gradients (Keerthi and DeCoste, "A modified finite Newton
    method for fast solution of large scale linear SVMs", 2005). The products with ``rows`` are
    shared by all classes; liblinear takes the classes one by one and keeps 16 bytes for each value.

    Args:
        rows: mapped features, float32 [N, m]; it is fast where they lie along their principal
            axes, so that the squared lengths of the columns are nearly the whole Hessian.
        targets: classes, int64 [N], 0 to n_classes - 1.
        c: penalty of a margin violation.
        start: what this function gave for another ``c``; zeros where None.

    Returns:
        float32 [m + 1, n_classes]: the weights of each class, and below them its intercept, which
        has no part in |w|^2.
    """
    signs = np.where(targets[:, None] == np.arange(targets.max() + 1), 1, -1).astype(np.float32)
    shape = (rows.shape[1] + 1, signs.shape[1])
    weights = np.zeros(shape, np.float32) if start is None else start.copy()
    enough = _TOLERANCE * np.linalg.norm(2 * c * _back(rows, signs), axis=0)
    scores = _forward(rows, weights)
    lengths = np.append(_squares(rows), np.float32(len(rows)))[:, None]
    for _ in range(_NEWTON_STEPS):
        short = np.maximum(1 - signs * scores, 0)
        gradient = _penalty(weights) - 2 * c * _back(rows, signs * short)
        if (np.linalg.norm(gradient, axis=0) <= enough).all():
            break
        inside = (short > 0).astype(np.float32)
        # The Hessian if every column were orthogonal to the others on the images inside.
        diagonal = 1 + 2 * c * inside.mean(axis=0) * lengths
        step, change = _newton_step(rows, inside, gradient, diagonal, c)
        share = _step_length(weights, step, scores, change, signs, c)
        if not share.any():
            break
        weights += share * step
        scores += share * change
    return weights


def _forward(rows: Float32Array, weights: Float32Array) -> Float32Array:
    """Compute scores [N, n_classes]."""
    return np.asarray(rows @ weights[:-1] + weights[-1])


def _back(rows: Float32Array, values: Float32Array) -> Float32Array:
    """Apply the transpose of ``_forward``: [N, n_classes] to [m + 1, n_classes]."""
    return np.concatenate([rows.T @ values, values.sum(axis=0, keepdims=True)])


def _penalty(weights: Float32Array) -> Float32Array:
    """Return the gradient of |w|^2 / 2, in which the intercept has no part."""
    return np.concatenate([weights[:-1], np.zeros_like(weights[-1:])])


def _newton_step(
    rows: Float32Array,
    inside: Float32Array,
    gradient: Float32Array,
    diagonal: Float32Array,
    c: float,
) -> tuple[Float32Array, Float32Array]:
    """Return the step [m + 1, n_classes], and how it changes the scores, [N, n_classes].

    Args:
        rows: [N, m].
        inside: [N, n_classes], 1 where the loss is not 0, else 0.
        gradient: [m + 1, n_classes].
        diagonal: [m + 1, n_classes], about that of the Hessian.
        c: penalty of a margin violation.
    """
    step, change = np.zeros_like(gradient), np.zeros_like(inside)
    left = -gradient
    direction = left / diagonal
    size = _dots(left, direction)
    enough = _SOLVED_TO**2 * size
    for _ in range(_CONJUGATE_STEPS):
        moved = _forward(rows, direction)
        bent = _penalty(direction) + 2 * c * _back(rows, inside * moved)
        # A class that is done stays where it is.
        share = np.where(size > enough, size / np.maximum(_dots(direction, bent), _TINY), 0)
        step += share * direction
        change += share * moved
        left -= share * bent
        before, size = size, _dots(left, left / diagonal)
        if (size <= enough).all():
            break
        direction = left / diagonal + size / np.maximum(before, _TINY) * direction
    return step, change


def _step_length(
    weights: Float32Array,
    step: Float32Array,
    scores: Float32Array,
    change: Float32Array,
    signs: Float32Array,
    c: float,
) -> Float32Array:
    """Return for each class the first of 1, 1/2, 1/4 ... at which its objective is not greater."""

    def objective(share: Float32Array) -> Float32Array:
        short = np.maximum(1 - signs * (scores + share * change), 0)
        return np.asarray(_squares((weights + share * step)[:-1]) / 2 + c * _squares(short))

    share = np.ones(weights.shape[1], np.float32)
    now = objective(0 * share)
    for _ in range(_HALVINGS):
        worse = objective(share) > now
        if not worse.any():
            return share
        share = np.where(worse, share / 2, share)
    return np.where(worse, 0, share).astype(np.float32)


def _dots(left: Float32Array, right: Float32Array) -> Float32Array:
    return np.asarray(np.einsum("ij,ij->j", left, right))


def _squares(values: Float32Array) -> Float32Array:
    return _dots(values, values)
