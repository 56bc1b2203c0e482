"""Support vector machines on one vector per image: four kernels, settings chosen inside train.

Every kernel ends in the same few arrays: scores = K(x, support) @ dual.T + intercept, one row of
``dual`` per class, each class trained against all others. So a fitted classifier is saved without
pickles and scored with NumPy alone, and a new kernel adds one function.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import config_context
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC

from scenetrack.classifiers.fitted import (
    PREPARATIONS,
    FittedClassifier,
    checked_features,
    prepared,
)
from scenetrack.config import KERNELS
from scenetrack.errors import InputError
from scenetrack.kernels import HISTOGRAM_KERNELS, Floats, compare, kernel_matrix

__all__ = [
    "C_GRID",
    "GAMMA_FACTORS",
    "PREPARATIONS",
    "FittedClassifier",
    "fit_by_cross_validation",
    "refit",
]

logger = logging.getLogger(__name__)

# An image compared with itself gives about 1 in every kernel, so one grid serves all. On the real
# split nearly every dual coefficient is at its bound below this grid, and hardly any above it.
C_GRID = tuple(float(c) for c in np.logspace(-1, 2, 7))
# Multiples of 1 / (mean distance of two training images), the customary middle of the grid:
# Zhang et al., "Local features and kernels for classification of texture and object categories",
# 2007.
GAMMA_FACTORS = (0.5, 1.0, 2.0, 4.0)

# Together the kernel matrices of the folds in work stay below this, but for one fold at least.
_FOLDS_BYTES = 2**30


def fit_by_cross_validation(
    features: ArrayLike,
    labels: ArrayLike,
    kernel: str,
    *,
    preparation: str,
    folds: int,
    seed: int,
) -> FittedClassifier:
    """Choose C and gamma by stratified cross-validation, then fit on all of ``features``.

    Chi2 and intersection compare features as they are; ``preparation`` says what linear and rbf
    need: ``square_root`` for histograms of sum 1, ``standardise`` for plain descriptors, in each
    fold by its own training part, ``none`` for what is already normalised. Of equally accurate
    settings the smallest C wins, then the smallest gamma.

    Args:
        features: [N, D], finite; not negative where they are square-rooted or the kernel is chi2
            or intersection.
        labels: [N] integers.
        kernel: one of ``config.KERNELS``.
        preparation: one of ``PREPARATIONS``.
        folds: number of folds, made smaller where a class has fewer images.
        seed: draws the folds.

    Raises:
        InputError: an unknown kernel or preparation, features or labels that do not fit, fewer
            than two classes, or a class with one image.
    """
    if kernel not in KERNELS:
        raise InputError(f"kernel must be one of: {', '.join(KERNELS)}. Received: {kernel!r}")
    if preparation not in PREPARATIONS:
        raise InputError(
            f"preparation must be one of: {', '.join(PREPARATIONS)}. Received: {preparation!r}"
        )
    if kernel in HISTOGRAM_KERNELS:
        preparation = "none"
    rows = checked_features(features, preparation, kernel)
    classes, targets = _checked_labels(labels, len(rows))
    folds = _usable_folds(targets, classes, folds)
    mean, scale = _standards(rows, preparation)
    ready = prepared(rows, preparation, mean, scale)
    compared = compare(ready, ready, kernel)
    gammas = _gamma_grid(compared, kernel)
    compare_fold = _fold_comparison(rows, compared, kernel, preparation)
    table = _cross_validate(compare_fold, targets, kernel, gammas, folds, seed)
    best_c, gamma = _choose(table)
    dual, intercept = _machines(kernel_matrix(compared, kernel, gamma), targets, best_c)
    support, dual = _compact(ready, dual, kernel)
    return FittedClassifier(
        kernel,
        gamma,
        preparation,
        mean,
        scale,
        support,
        dual,
        intercept,
        classes,
        best_c,
        table,
    )


def refit(classifier: FittedClassifier, features: ArrayLike, labels: ArrayLike) -> FittedClassifier:
    """A classifier with the kernel and settings of ``classifier``, fitted on other images.

    Args:
        classifier: its kernel, C, gamma and preparation are kept.
        features: [N, D], as at fit.
        labels: [N] integers.

    Raises:
        InputError: features or labels that do not fit, or fewer than two classes.
    """
    preparation, kernel = classifier.preparation, classifier.kernel
    rows = checked_features(features, preparation, kernel)
    classes, targets = _checked_labels(labels, len(rows))
    mean, scale = _standards(rows, preparation)
    ready = prepared(rows, preparation, mean, scale)
    matrix = kernel_matrix(compare(ready, ready, kernel), kernel, classifier.gamma)
    dual, intercept = _machines(matrix, targets, classifier.C)
    support, dual = _compact(ready, dual, kernel)
    return dataclasses.replace(
        classifier,
        mean=mean,
        scale=scale,
        support=support,
        dual=dual,
        intercept=intercept,
        classes=classes,
    )


_FoldComparison: TypeAlias = Callable[[NDArray[np.int64], NDArray[np.int64]], tuple[Floats, Floats]]


def _fold_comparison(
    rows: Floats, compared: Floats, kernel: str, preparation: str
) -> _FoldComparison:
    """From the indices of a fold: train against train, and held out against train.

    ``compared`` of all rows is cut up, unless each fold has its own standardisation.
    """

    def cut(train: NDArray[np.int64], held: NDArray[np.int64]) -> tuple[Floats, Floats]:
        return compared[np.ix_(train, train)], compared[np.ix_(held, train)]

    def standardised(train: NDArray[np.int64], held: NDArray[np.int64]) -> tuple[Floats, Floats]:
        own = _standards(rows[train], preparation)
        left, right = (prepared(rows[part], preparation, *own) for part in (train, held))
        return compare(left, left, kernel), compare(right, left, kernel)

    return standardised if preparation == "standardise" else cut


def _cross_validate(
    compare_fold: _FoldComparison,
    targets: NDArray[np.int64],
    kernel: str,
    gammas: Sequence[float],
    folds: int,
    seed: int,
) -> Floats:
    """float64 [n_settings, 4]: C, gamma, mean and deviation of the held-out accuracy."""
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    splits = list(splitter.split(np.zeros(len(targets)), targets))

    def score_fold(split: tuple[NDArray[np.int64], NDArray[np.int64]]) -> Floats:
        train, held = split
        fold_train, fold_held = compare_fold(train, held)
        accuracies = np.empty((len(gammas), len(C_GRID)))
        for row, gamma in enumerate(gammas):
            matrix = kernel_matrix(fold_train, kernel, gamma)
            held_matrix = kernel_matrix(fold_held, kernel, gamma)
            for column, c in enumerate(C_GRID):
                dual, intercept = _machines(matrix, targets[train], c)
                found = np.argmax(held_matrix @ dual.T + intercept, axis=1)
                accuracies[row, column] = np.mean(found == targets[held])
        return accuracies

    fold_bytes = 2 * 8 * len(targets) ** 2
    workers = max(1, min(folds, os.cpu_count() or 1, _FOLDS_BYTES // fold_bytes))
    with ThreadPoolExecutor(workers) as pool:
        accuracies = np.stack(list(pool.map(score_fold, splits)))  # folds x gammas x C
    settings = [(c, gamma) for gamma in gammas for c in C_GRID]
    spread = np.stack([accuracies.mean(axis=0).ravel(), accuracies.std(axis=0).ravel()], axis=1)
    return np.concatenate([np.array(settings), spread], axis=1)


def _choose(table: Floats) -> tuple[float, float]:
    """C and gamma of the best mean accuracy, equal ones by smaller C, then smaller gamma."""
    # Means of the same accuracies may differ in their last bits.
    best = table[table[:, 2] >= table[:, 2].max() - 1e-12]
    c, gamma = min((float(row[0]), float(row[1])) for row in best)
    return c, gamma


def _machines(matrix: Floats, targets: NDArray[np.int64], c: float) -> tuple[Floats, Floats]:
    """Each class against the others: dual [n_classes, N] and intercept [n_classes]."""
    count = int(targets.max()) + 1
    dual, intercept = np.zeros((count, len(targets))), np.zeros(count)
    # The matrix was made from checked features; checking it again costs as much as a fit.
    with config_context(assume_finite=True):
        for label in range(count):
            machine = SVC(C=c, kernel="precomputed").fit(matrix, targets == label)
            dual[label, machine.support_] = machine.dual_coef_[0]
            intercept[label] = machine.intercept_[0]
    return dual, intercept


def _compact(rows: Floats, dual: Floats, kernel: str) -> tuple[Floats, Floats]:
    """The support vectors [S, D] that any machine uses and their dual [n_classes, S]."""
    if kernel == "linear":
        return dual @ rows, np.eye(len(dual))
    used = dual.any(axis=0)
    # In float32 steps, to be stored in half the room; histograms are so already.
    return rows[used].astype(np.float32).astype(np.float64), dual[:, used]


def _gamma_grid(compared: Floats, kernel: str) -> tuple[float, ...]:
    if kernel not in ("rbf", "chi2"):
        return (0.0,)
    unit = float(compared.sum()) / (len(compared) * (len(compared) - 1))
    return tuple(factor / (unit or 1.0) for factor in GAMMA_FACTORS)


def _standards(rows: Floats, preparation: str) -> tuple[Floats, Floats]:
    """Mean and scale [D] under which rows have mean 0 and a mean squared length of 1."""
    width = rows.shape[1]
    if preparation != "standardise":
        return np.zeros(width), np.ones(width)
    deviation = rows.std(axis=0)
    # Unit length, and not unit variance alone, so that one C grid serves every D.
    return rows.mean(axis=0), np.where(deviation > 0, deviation, 1.0) * np.sqrt(width)


def _checked_labels(labels: ArrayLike, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The classes in ascending order, and each label's place among them."""
    given = np.asarray(labels)
    if given.shape != (count,):
        raise InputError(f"{count} features need {count} labels. Received: shape {given.shape}")
    classes, targets = np.unique(given.astype(np.int64), return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"a classifier needs at least two classes. Received: {len(classes)}")
    return classes, targets


def _usable_folds(targets: NDArray[np.int64], classes: NDArray[np.int64], folds: int) -> int:
    counts = np.bincount(targets)
    smallest = int(counts.min())
    if smallest < 2:
        raise InputError(
            "cross-validation needs at least 2 training images of every class. Received: 1 of "
            f"class {classes[int(np.argmin(counts))]}; add images or leave the class out"
        )
    if smallest < folds:
        logger.warning(
            "%d folds instead of %d: class %d has no more training images",
            smallest,
            folds,
            classes[int(np.argmin(counts))],
        )
    return min(folds, smallest)
