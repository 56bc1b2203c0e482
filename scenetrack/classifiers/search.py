"""C and gamma by cross-validation inside train, with what is fitted inside the folds."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import StratifiedKFold

from scenetrack.classifiers.fitted import checked_for
from scenetrack.classifiers.machines import kernel_machines, mapped_machines
from scenetrack.classifiers.maps import as_landmarks, mapped, whitening
from scenetrack.errors import InputError
from scenetrack.features import Floats, Rows
from scenetrack.kernels import compare, kernel_matrix

logger = logging.getLogger(__name__)

# From the indices of a fold's training images to the features [N, D] of all of them, by
# transformers that were fitted on those alone.
FoldFeatures: TypeAlias = Callable[[NDArray[np.int64]], ArrayLike]

# An image compared with itself gives about 1 in every kernel, so one grid serves all. On the real
# split nearly every dual coefficient is at its bound below this grid, and hardly any above it.
C_GRID = tuple(float(c) for c in np.logspace(-1, 2, 7))
# Multiples of 1 / (mean distance of two training images), the customary middle of the grid:
# Zhang et al., "Local features and kernels for classification of texture and object categories",
# 2007.
GAMMA_FACTORS = (0.5, 1.0, 2.0, 4.0)

# Together the kernel matrices of the folds in work stay below this, but for one fold at least.
_FOLDS_BYTES = 2**30


@dataclass(frozen=True)
class Search:
    """Training images whose settings are to be found.

    Attributes:
        rows: their features, prepared as a whole.
        targets: classes, int64 [N], 0 to n_classes - 1.
        kernel: one of ``config.KERNELS``.
        references: which images the others are compared with, int64 [R]: all of them, or the
            landmarks of an explicit map.
        compared: float64 [N, R], all rows and the references.
        explicit_map: whether the references are landmarks.
        fold_features: features of each fold's own; None: ``rows`` in all folds.
    """

    rows: Rows
    targets: NDArray[np.int64]
    kernel: str
    references: NDArray[np.int64]
    compared: Floats
    explicit_map: bool
    fold_features: FoldFeatures | None

    def settings_table(self, gammas: Sequence[float], folds: int, seed: int) -> Floats:
        """Float64 [n_settings, 4]: C, gamma, mean and deviation of the held-out accuracy."""
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
        splits = list(splitter.split(np.zeros(len(self.targets)), self.targets))
        with ThreadPoolExecutor(self._workers(folds)) as pool:
            found = list(
                pool.map(lambda split: self._accuracies(split[0], split[1], gammas), splits)
            )
        accuracies = np.stack(found)  # folds x gammas x C
        settings = [(c, gamma) for gamma in gammas for c in C_GRID]
        spread = np.stack([accuracies.mean(axis=0).ravel(), accuracies.std(axis=0).ravel()], axis=1)
        return np.concatenate([np.array(settings), spread], axis=1)

    def _workers(self, folds: int) -> int:
        # Transformers and the products of a map use all processors themselves.
        if self.fold_features is not None or self.explicit_map:
            return 1
        fold_bytes = 2 * 8 * len(self.targets) ** 2
        return max(1, min(folds, os.cpu_count() or 1, _FOLDS_BYTES // fold_bytes))

    def _accuracies(
        self, train: NDArray[np.int64], held: NDArray[np.int64], gammas: Sequence[float]
    ) -> Floats:
        """Of one fold's held-out images: float64 [n_gammas, n_C]."""
        kept = np.flatnonzero(np.isin(self.references, train))
        chosen = self.references[kept]
        if self.fold_features is None and self.rows.preparation != "standardise":
            known, unknown = (self.compared[np.ix_(part, kept)] for part in (train, held))
        else:
            known, unknown = self._compared_anew(train, held, chosen)
        targets = self.targets[train], self.targets[held]
        if not self.explicit_map:
            return np.array([self._exact(known, unknown, targets, gamma) for gamma in gammas])
        between = known[np.searchsorted(train, chosen)]
        return np.array([self._mapped(known, unknown, between, targets, gamma) for gamma in gammas])

    def _compared_anew(
        self, train: NDArray[np.int64], held: NDArray[np.int64], chosen: NDArray[np.int64]
    ) -> tuple[Floats, Floats]:
        """Train and held out against ``chosen``, by transformers and standards of train alone."""
        values = self.rows.values
        if self.fold_features is not None:
            given = self.fold_features(train)
            values = checked_for(self.kernel, self.rows.preparation, given)
            if len(values) != len(self.targets):
                raise InputError(
                    f"a fold needs the features of all {len(self.targets)} images. Received: "
                    f"{len(values)}"
                )
        rows = Rows.standardised(values[train], self.rows.preparation)
        others = rows
        if self.explicit_map:
            others = as_landmarks(rows.like(values[chosen]))
        known = compare(rows, others, self.kernel)
        return known, compare(rows.like(values[held]), others, self.kernel)

    def _exact(
        self,
        known: Floats,
        unknown: Floats,
        targets: tuple[NDArray[np.int64], NDArray[np.int64]],
        gamma: float,
    ) -> list[float]:
        """The share of held-out images that is right, for every C."""
        matrix = kernel_matrix(known, self.kernel, gamma)
        held = kernel_matrix(unknown, self.kernel, gamma)
        found = []
        for c in C_GRID:
            dual, intercept = kernel_machines(matrix, targets[0], c)
            found.append(_share_right(held @ dual.T + intercept, targets[1]))
        return found

    def _mapped(
        self,
        known: Floats,
        unknown: Floats,
        between: Floats,
        targets: tuple[NDArray[np.int64], NDArray[np.int64]],
        gamma: float,
    ) -> list[float]:
        """As ``_exact``; ``between`` are the landmarks among themselves."""
        whiten = whitening(kernel_matrix(between, self.kernel, gamma))
        rows, held = (mapped(part, self.kernel, gamma, whiten) for part in (known, unknown))
        weights, found = None, []
        for c in C_GRID:
            weights = mapped_machines(rows, targets[0], c, weights)
            found.append(_share_right(held @ weights[:-1] + weights[-1], targets[1]))
        return found


def best_setting(table: Floats) -> tuple[float, float]:
    """C and gamma of the best mean accuracy, equal ones by smaller C, then smaller gamma."""
    # Means of the same accuracies may differ in their last bits.
    best = table[table[:, 2] >= table[:, 2].max() - 1e-12]
    c, gamma = min((float(row[0]), float(row[1])) for row in best)
    return c, gamma


def gamma_grid(between: Floats, kernel: str) -> tuple[float, ...]:
    """The gammas to try.

    Args:
        between: ``kernels.compare`` of the references with themselves, float64 [R, R].
        kernel: one of ``config.KERNELS``; those without a gamma try 0 alone.
    """
    if kernel not in ("rbf", "chi2"):
        return (0.0,)
    unit = float(between.sum()) / (len(between) * (len(between) - 1))
    return tuple(factor / (unit or 1.0) for factor in GAMMA_FACTORS)


def usable_folds(targets: NDArray[np.int64], classes: NDArray[np.int64], folds: int) -> int:
    """``folds``, or fewer where a class has fewer images.

    Raises:
        InputError: a class has one image alone.
    """
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


def _share_right(scores: NDArray[np.floating], targets: NDArray[np.int64]) -> float:
    return float(np.mean(np.argmax(scores, axis=1) == targets))
