"""Support vector machines on one vector per image: four kernels, settings chosen inside train.

Every kernel ends in the same few arrays: scores = K(x, support) @ dual.T + intercept, one row of
``dual`` per class, each class trained against all others. So a fitted classifier is saved without
pickles and scored with NumPy alone, and a new kernel adds one function.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scenetrack.classifiers.fitted import FittedClassifier, checked_for
from scenetrack.classifiers.machines import kernel_machines, mapped_machines
from scenetrack.classifiers.maps import (
    MAPPED_FROM,
    as_landmarks,
    draw_landmarks,
    mapped,
    whitening,
)
from scenetrack.classifiers.search import (
    C_GRID,
    GAMMA_FACTORS,
    FoldFeatures,
    Search,
    best_setting,
    gamma_grid,
    usable_folds,
)
from scenetrack.config import KERNELS
from scenetrack.errors import InputError
from scenetrack.features import PREPARATIONS, Floats, Rows, column_parts
from scenetrack.kernels import HISTOGRAM_KERNELS, compare, kernel_matrix

__all__ = [
    "C_GRID",
    "GAMMA_FACTORS",
    "FittedClassifier",
    "FoldFeatures",
    "fit_by_cross_validation",
    "refit",
]

logger = logging.getLogger(__name__)


def fit_by_cross_validation(
    features: ArrayLike,
    labels: ArrayLike,
    kernel: str,
    *,
    preparation: str,
    folds: int,
    seed: int,
    fold_features: FoldFeatures | None = None,
) -> FittedClassifier:
    """Choose C and gamma by stratified cross-validation, then fit on all of ``features``.

    Chi2 and intersection compare features as they are; ``preparation`` says what linear and rbf
    need: ``square_root`` for histograms of sum 1, ``standardise`` for plain descriptors, in each
    fold by its own training part, ``none`` for what is already normalised. Of equally accurate
    settings the smallest C wins, then the smallest gamma. From ``maps.MAPPED_FROM`` images on, the
    kernel is approximated by an explicit map.

    Args:
        features: [N, D], finite; not negative where they are square-rooted or the kernel is chi2
            or intersection. Float32 is not copied.
        labels: [N] integers.
        kernel: one of ``config.KERNELS``.
        preparation: one of ``features.PREPARATIONS``.
        folds: number of folds, made smaller where a class has fewer images.
        seed: draws the folds, and the landmarks of an explicit map.
        fold_features: from the indices int64 [n] of a fold's training images to the features
            [N, D'] of all images, by transformers fitted on those n alone. Asked once for each
            fold, one after the other; the same labels, folds and seed give the same indices for
            every kernel. None: ``features`` in all folds, so that what their transformers learnt
            from the images held out counts as known.

    Raises:
        InputError: an unknown kernel or preparation, features or labels that do not fit, fewer
            than two classes, or a class with one image.
    """
    preparation = _needed_preparation(kernel, preparation)
    values = checked_for(kernel, preparation, features)
    classes, targets = _checked_labels(labels, len(values))
    folds = usable_folds(targets, classes, folds)
    explicit_map = len(values) >= MAPPED_FROM
    fitting = _Fitting.of(values, targets, kernel, preparation, explicit_map, seed)
    if explicit_map:
        logger.info(
            "%d images are many: the %s kernel is approximated by %d landmarks",
            len(values),
            kernel,
            len(fitting.references),
        )
    search = Search(
        fitting.rows,
        targets,
        kernel,
        fitting.references,
        fitting.compared,
        explicit_map,
        fold_features,
    )
    gammas = gamma_grid(fitting.compared[fitting.references], kernel)
    table = search.settings_table(gammas, folds, seed)
    best_c, gamma = best_setting(table)
    support, dual, intercept = fitting.machines(best_c, gamma)
    return FittedClassifier(
        kernel=kernel,
        gamma=gamma,
        preparation=preparation,
        mean=fitting.rows.mean,
        scale=fitting.rows.scale,
        support=support,
        dual=dual,
        intercept=intercept,
        classes=classes,
        C=best_c,
        cv_table=table,
        seed=seed,
        explicit_map=explicit_map,
        transformers_in_folds=fold_features is not None,
    )


def refit(classifier: FittedClassifier, features: ArrayLike, labels: ArrayLike) -> FittedClassifier:
    """A classifier with the kernel and settings of ``classifier``, fitted on other images.

    Args:
        classifier: its kernel, C, gamma and preparation are kept, and whether the kernel is
            approximated.
        features: [N, D], as at fit.
        labels: [N] integers.

    Raises:
        InputError: features or labels that do not fit, or fewer than two classes.
    """
    preparation, kernel = classifier.preparation, classifier.kernel
    values = checked_for(kernel, preparation, features)
    classes, targets = _checked_labels(labels, len(values))
    fitting = _Fitting.of(
        values, targets, kernel, preparation, classifier.explicit_map, classifier.seed
    )
    support, dual, intercept = fitting.machines(classifier.C, classifier.gamma)
    return dataclasses.replace(
        classifier,
        mean=fitting.rows.mean,
        scale=fitting.rows.scale,
        support=support,
        dual=dual,
        intercept=intercept,
        classes=classes,
    )


@dataclass(frozen=True)
class _Fitting:
    """Images compared with those that they are fitted by: all of them, or landmarks.

    Attributes:
        rows: all N images.
        others: the R images that they are compared with, ``rows`` itself or landmarks.
        references: which of them those are, int64 [R].
        compared: float64 [N, R].
    """

    kernel: str
    targets: NDArray[np.int64]
    rows: Rows
    others: Rows
    references: NDArray[np.int64]
    compared: Floats

    @classmethod
    def of(
        cls,
        values: NDArray[np.floating],
        targets: NDArray[np.int64],
        kernel: str,
        preparation: str,
        explicit_map: bool,
        seed: int,
    ) -> _Fitting:
        rows = Rows.standardised(values, preparation)
        others, references = rows, np.arange(len(values))
        if explicit_map:
            references = draw_landmarks(targets, seed)
            others = as_landmarks(rows.like(values[references]))
        compared = compare(rows, others, kernel)
        return cls(kernel, targets, rows, others, references, compared)

    def machines(self, c: float, gamma: float) -> tuple[NDArray[np.float32], Floats, Floats]:
        """Support [S, D], dual [n_classes, S] and intercept [n_classes] of a classifier."""
        if self.others is self.rows:
            matrix = kernel_matrix(self.compared, self.kernel, gamma)
            dual, intercept = kernel_machines(matrix, self.targets, c)
        else:
            between = kernel_matrix(self.compared[self.references], self.kernel, gamma)
            whiten = whitening(between)
            features = mapped(self.compared, self.kernel, gamma, whiten)
            weights = mapped_machines(features, self.targets, c).astype(np.float64)
            dual, intercept = (whiten @ weights[:-1]).T, weights[-1]
        return *_compact(self.others, dual, self.kernel), intercept


def _compact(rows: Rows, dual: Floats, kernel: str) -> tuple[NDArray[np.float32], Floats]:
    """The support vectors [S, D] that any machine uses and their dual [n_classes, S]."""
    # In float32 steps, to be stored in half the room; most features are so already.
    if kernel == "linear":
        weights = [dual @ columns for columns, _ in column_parts(rows, rows)]
        return np.concatenate(weights, axis=1).astype(np.float32), np.eye(len(dual))
    used = dual.any(axis=0)
    return as_landmarks(rows.like(rows.values[used])).values.astype(np.float32), dual[:, used]


def _needed_preparation(kernel: str, preparation: str) -> str:
    """``preparation``, or none where the kernel compares histograms as they are."""
    if kernel not in KERNELS:
        raise InputError(f"kernel must be one of: {', '.join(KERNELS)}. Received: {kernel!r}")
    if preparation not in PREPARATIONS:
        raise InputError(
            f"preparation must be one of: {', '.join(PREPARATIONS)}. Received: {preparation!r}"
        )
    return "none" if kernel in HISTOGRAM_KERNELS else preparation


def _checked_labels(labels: ArrayLike, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The classes in ascending order, and each label's place among them."""
    given = np.asarray(labels)
    if given.shape != (count,):
        raise InputError(f"{count} features need {count} labels. Received: shape {given.shape}")
    classes, targets = np.unique(given.astype(np.int64), return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"a classifier needs at least two classes. Received: {len(classes)}")
    return classes, targets
