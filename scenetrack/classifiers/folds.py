"""Stratified folds, and how many of them the smallest class allows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from scenetrack.errors import InputError

logger = logging.getLogger(__name__)

# The training images of a fold and those held out, int64 indices.
Fold: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]


def usable_folds(targets: NDArray[np.int64], class_names: Sequence[object], folds: int) -> int:
    """Return ``folds``, or fewer, with a warning, where a class has fewer images.

    Args:
        targets: int64 [N], places of the images' classes in ``class_names``.
        class_names: for the messages.
        folds: the number asked for.

    Raises:
        InputError: a class has fewer than two images.
    """
    counts = np.bincount(targets, minlength=len(class_names))
    smallest = int(counts.argmin())
    if counts[smallest] < 2:
        raise InputError(
            "cross-validation needs at least 2 training images of every class. Received: "
            f"{counts[smallest]} of class {class_names[smallest]}; add images or remove the class"
        )
    if counts[smallest] < folds:
        logger.warning(
            "%d folds instead of %d: class %s has no more training images",
            counts[smallest],
            folds,
            class_names[smallest],
        )
    return min(folds, int(counts[smallest]))


def stratified_folds(targets: NDArray[np.int64], folds: int, seed: int) -> list[Fold]:
    """Return folds with the classes ``targets`` int64 [N] in equal parts."""
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(len(targets)), targets))


def held_out_fold(targets: NDArray[np.int64], held_out: NDArray[np.int64]) -> Fold:
    """Return one fold: ``held_out`` int64 [H] against all other images.

    Raises:
        InputError: the other images lack a class.
    """
    rest = np.setdiff1d(np.arange(len(targets)), held_out)
    missing = np.setdiff1d(targets, targets[rest])
    if len(missing):
        raise InputError(
            "images besides the held-out ones must show every class. Received: none of class "
            f"number {missing[0]}; hold out fewer images"
        )
    return rest, held_out
