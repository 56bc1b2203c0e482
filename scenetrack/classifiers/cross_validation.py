"""Cross-validation inside train: SVM settings chosen by it, and scores of images left out."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scenetrack.classifiers.classifier import FittedClassifier, checked_for
from scenetrack.classifiers.feature_rows import PREPARATIONS
from scenetrack.classifiers.fitting import Fitting
from scenetrack.classifiers.folds import held_out_fold, stratified_folds, usable_folds
from scenetrack.classifiers.grid_search import FoldFeatures, Search, best_setting
from scenetrack.classifiers.kernel_maps import MAPPED_FROM
from scenetrack.classifiers.selection import Selection
from scenetrack.config import KERNELS
from scenetrack.errors import InputError

logger = logging.getLogger(__name__)

HELD_OUT_IMAGES = "held-out images"  # a cv_scope


def fit_by_cross_validation(
    features: ArrayLike,
    labels: ArrayLike,
    kernel: str,
    *,
    preparation: str,
    folds: int,
    seed: int,
    fold_features: FoldFeatures | None = None,
    held_out: NDArray[np.int64] | None = None,
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
        held_out: int64 [H], one fold instead of ``folds``: settings are fitted on the other images
            and judged on these. For features of a network that has learnt the others by heart:
            among those every setting looks right. None: folds of all images.

    Raises:
        InputError: an unknown kernel or preparation, features or labels that do not fit, fewer
            than two classes, or a class with one image.
    """
    preparation = _needed_preparation(kernel, preparation)
    values = checked_for(kernel, preparation, features)
    classes, targets = _checked_labels(labels, len(values))
    if held_out is None:
        splits = stratified_folds(targets, usable_folds(targets, classes.tolist(), folds), seed)
    else:
        splits = [held_out_fold(targets, held_out)]
    explicit_map = len(values) >= MAPPED_FROM
    fitting = Fitting.of(values, targets, kernel, preparation, explicit_map, seed)
    if explicit_map:
        logger.info(
            "%d images are many: the %s kernel is approximated by %d landmarks",
            len(values),
            kernel,
            len(fitting.references),
        )
    tried = Search(fitting, fold_features).settings(splits)
    best_c, gamma = best_setting(tried.table)
    selection = tried.selection()
    if held_out is not None:
        images = selection.images
        selection = Selection.of_held_out(selection.right, images, targets[images])
    return FittedClassifier(
        kernel=kernel,
        gamma=gamma,
        preparation=preparation,
        **fitting.machines(best_c, gamma),
        classes=classes,
        C=best_c,
        cv_table=tried.table,
        seed=seed,
        explicit_map=explicit_map,
        cv_scope=_cv_scope(fold_features, held_out),
        fold_scores=None if held_out is not None else tried.scores(best_c, gamma),
        selection=selection,
    )


def refit(classifier: FittedClassifier, features: ArrayLike, labels: ArrayLike) -> FittedClassifier:
    """Fit a classifier with the kernel and settings of ``classifier`` on other images.

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
    fitting = Fitting.of(
        values, targets, kernel, preparation, classifier.explicit_map, classifier.seed
    )
    learnt = fitting.machines(classifier.C, classifier.gamma)
    return dataclasses.replace(
        classifier, **learnt, classes=classes, fold_scores=None, selection=None
    )


def refit_apart(
    classifier: FittedClassifier,
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    fitted: NDArray[np.int64],
) -> FittedClassifier:
    """Fit on the images ``fitted`` alone, with the setting that is best on them alone.

    Args:
        classifier: fresh from ``fit_by_cross_validation``; its kernel and preparation are kept.
        features: [N, D], as it was fitted on.
        labels: int64 [N].
        fitted: int64 [n], the images that may choose and be learnt from.
    """
    selection = classifier.selection
    if selection is not None and classifier.cv_scope != HELD_OUT_IMAGES:
        table = classifier.cv_table
        order = np.lexsort((table[:, 1], table[:, 0]))
        best = table[order][selection.best(np.isin(selection.images, fitted))]
        classifier = dataclasses.replace(classifier, C=float(best[0]), gamma=float(best[1]))
    return refit(classifier, features[fitted], labels[fitted])


def out_of_fold_scores(
    classifier: FittedClassifier,
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    folds: int,
    *,
    seed: int,
) -> NDArray[np.float64]:
    """Score every image by a classifier of the same settings that was not fitted on it.

    Args:
        classifier: its kernel, C and gamma are kept.
        features: [N, D], as it was fitted on.
        labels: int64 [N], at least two images of every class.
        folds: number of parts, made smaller where a class has fewer images.
        seed: draws the folds.

    Returns:
        float64 [N, n_classes].
    """
    targets = np.searchsorted(classifier.classes, labels)
    folds = usable_folds(targets, classifier.classes.tolist(), folds)
    scores = np.empty((len(labels), len(classifier.classes)))
    for fitted, held_out in stratified_folds(targets, folds, seed):
        part = refit(classifier, features[fitted], labels[fitted])
        scores[held_out] = part.predict_scores(features[held_out])
    return scores


def _cv_scope(fold_features: FoldFeatures | None, held_out: NDArray[np.int64] | None) -> str:
    if held_out is not None:
        return HELD_OUT_IMAGES
    return "classifier only" if fold_features is None else "descriptor encoder inside the folds"


def _needed_preparation(kernel: str, preparation: str) -> str:
    """Return ``preparation``, or none where the kernel compares histograms as they are."""
    if kernel not in KERNELS:
        raise InputError(f"kernel must be one of: {', '.join(KERNELS)}. Received: {kernel!r}")
    if preparation not in PREPARATIONS:
        raise InputError(
            f"preparation must be one of: {', '.join(PREPARATIONS)}. Received: {preparation!r}"
        )
    return "none" if KERNELS[kernel].of_histograms else preparation


def _checked_labels(labels: ArrayLike, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the classes in ascending order, and each label's place among them."""
    given = np.asarray(labels)
    if given.shape != (count,):
        raise InputError(f"{count} features need {count} labels. Received: shape {given.shape}")
    classes, targets = np.unique(given.astype(np.int64), return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"a classifier needs at least two classes. Received: {len(classes)}")
    return classes, targets
