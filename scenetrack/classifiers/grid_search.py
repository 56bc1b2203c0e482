"""Grid search of C and gamma: every setting judged on the images that each fold holds out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from scenetrack.classifiers.classifier import checked_for
from scenetrack.classifiers.feature_rows import Floats, Rows
from scenetrack.classifiers.fitting import C_GRID, Fitting
from scenetrack.classifiers.folds import Fold
from scenetrack.classifiers.kernel_maps import as_landmarks, mapped, whitening
from scenetrack.classifiers.kernels import compare, kernel_matrix
from scenetrack.classifiers.selection import Selection
from scenetrack.classifiers.svm import kernel_machines, mapped_machines
from scenetrack.config import KERNELS
from scenetrack.errors import InputError
from scenetrack.system.machine import available_cpus

# From the indices of a fold's training images to the features [N, D] of all of them, by
# transformers that were fitted on those alone.
FoldFeatures: TypeAlias = Callable[[NDArray[np.int64]], ArrayLike]

# Multiples of 1 / (mean distance of two training images), the customary middle of the grid:
# Zhang et al., "Local features and kernels for classification of texture and object categories",
# 2007.
GAMMA_FACTORS = (0.5, 1.0, 2.0, 4.0)

# Together the matrices of the folds in work stay below this, but for one fold at least.
_FOLDS_BYTES = 2**30


class Judged(NamedTuple):
    """A setting in one fold: whether it is right on each image held out, and their scores.

    ``right`` is bool [H]. Scores are float32 [H, n_classes], and kept only where each fold had
    features of its own: they cost too much to be made twice.
    """

    right: NDArray[np.bool_]
    scores: NDArray[np.float32] | None


@dataclass(frozen=True)
class Settings:
    """All settings that were tried.

    Attributes:
        table: float64 [n_settings, 4]: C, gamma, mean and deviation (n - 1) of the held-out
            accuracy.
        folds: for each fold what it says of every setting, in the order of the table.
        held_out: for each fold the images that it holds out, int64.
    """

    table: Floats
    folds: Sequence[Sequence[Judged]]
    held_out: Sequence[NDArray[np.int64]]

    def selection(self) -> Selection:
        """Return all settings, by C and then gamma, on the images that the folds hold out."""
        order = np.lexsort((self.table[:, 1], self.table[:, 0]))
        right = np.concatenate(
            [np.stack([judged.right for judged in fold]) for fold in self.folds], axis=1
        )
        return Selection(
            right[order],
            np.concatenate(self.held_out),
            np.repeat(np.arange(len(self.held_out)), [len(held) for held in self.held_out]),
        )

    def scores(self, c: float, gamma: float) -> NDArray[np.float32] | None:
        """Return scores float32 [N, n_classes] of all images at one setting, None if not kept.

        Each image is scored by the machines of the fold that held it out.
        """
        place = int(np.flatnonzero((self.table[:, :2] == (c, gamma)).all(axis=1))[0])
        parts = [fold[place].scores for fold in self.folds]
        kept = [part for part in parts if part is not None]
        if len(kept) < len(parts):
            return None
        scores = np.concatenate(kept)
        return scores[np.argsort(np.concatenate(self.held_out))]


@dataclass(frozen=True)
class Search:
    """Training images whose settings are to be found.

    Attributes:
        fitting: the images, compared.
        fold_features: features of each fold's own; None: those of ``fitting`` in all folds.
    """

    fitting: Fitting
    fold_features: FoldFeatures | None

    def settings(self, splits: Sequence[Fold]) -> Settings:
        """Judge every setting by the images that each of ``splits`` holds out."""
        gammas = _gamma_grid(self.fitting.between, self.fitting.kernel)
        workers = self._workers(len(splits))
        # Folds side by side leave no processor to the threads of a product, which then wait for
        # each other; transformers have all processors to themselves.
        threads = None if self.fold_features is not None else 1
        with threadpool_limits(threads), ThreadPoolExecutor(workers) as pool:
            found = list(pool.map(lambda split: self._judged(split[0], split[1], gammas), splits))
        accuracies = np.array([[judged.right.mean() for judged in fold] for fold in found])
        settings = [(c, gamma) for gamma in gammas for c in C_GRID]
        # Of one fold alone there is no deviation.
        deviations = accuracies.std(axis=0, ddof=min(1, len(accuracies) - 1))
        spread = np.stack([accuracies.mean(axis=0), deviations], axis=1)
        table = np.concatenate([np.array(settings), spread], axis=1)
        return Settings(table, found, [held for _, held in splits])

    def _workers(self, folds: int) -> int:
        if self.fold_features is not None:
            return 1
        # Matrices of float64, or of float64 and float32 at once.
        fold_bytes = (12 if self.fitting.explicit_map else 16) * self.fitting.compared.size
        return max(1, min(folds, available_cpus(), _FOLDS_BYTES // fold_bytes))

    def _judged(
        self, train: NDArray[np.int64], held: NDArray[np.int64], gammas: Sequence[float]
    ) -> list[Judged]:
        """Judge every gamma and, within it, every C by one fold's held-out images."""
        fitting = self.fitting
        kept = np.flatnonzero(np.isin(fitting.references, train))
        chosen = fitting.references[kept]
        if self.fold_features is None and fitting.rows.preparation != "standardise":
            known, unknown = (fitting.compared[np.ix_(part, kept)] for part in (train, held))
        else:
            known, unknown = self._compared_anew(train, held, chosen)
        targets = fitting.targets[train]
        between = known[np.searchsorted(train, chosen)] if fitting.explicit_map else None
        return [
            self._judge(scores, fitting.targets[held])
            for gamma in gammas
            for scores in self._scores(known, unknown, between, targets, gamma)
        ]

    def _judge(self, scores: NDArray[np.floating[Any]], targets: NDArray[np.int64]) -> Judged:
        right = np.argmax(scores, axis=1) == targets
        return Judged(right, None if self.fold_features is None else scores.astype(np.float32))

    def _compared_anew(
        self, train: NDArray[np.int64], held: NDArray[np.int64], chosen: NDArray[np.int64]
    ) -> tuple[Floats, Floats]:
        """Train and held out against ``chosen``, by transformers and standards of train alone."""
        kernel, preparation = self.fitting.kernel, self.fitting.rows.preparation
        values, count = self.fitting.rows.values, len(self.fitting.targets)
        if self.fold_features is not None:
            values = checked_for(kernel, preparation, self.fold_features(train))
            if len(values) != count:
                raise InputError(
                    f"a fold needs the features of all {count} images. Received: {len(values)}"
                )
        rows = Rows.standardised(values[train], preparation)
        others = rows
        if self.fitting.explicit_map:
            others = as_landmarks(rows.like(values[chosen]))
        return compare(rows, others, kernel), compare(rows.like(values[held]), others, kernel)

    def _scores(
        self,
        known: Floats,
        unknown: Floats,
        between: Floats | None,
        targets: NDArray[np.int64],
        gamma: float,
    ) -> Iterator[NDArray[np.floating[Any]]]:
        """Score the held-out images for every C: [H, n_classes] each.

        Args:
            known, unknown: training and held-out images, compared with the references.
            between: the landmarks among themselves; None where the kernel is exact.
            targets: of the training images.
            gamma: of the kernel.
        """
        kernel = self.fitting.kernel
        if between is None:
            matrix, similar = (kernel_matrix(part, kernel, gamma) for part in (known, unknown))
            for c in C_GRID:
                dual, intercept = kernel_machines(matrix, targets, c)
                yield similar @ dual.T + intercept
            return
        whiten = whitening(kernel_matrix(between, kernel, gamma))
        rows, held = (mapped(part, kernel, gamma, whiten) for part in (known, unknown))
        weights = None
        for c in C_GRID:
            weights = mapped_machines(rows, targets, c, weights)
            yield held @ weights[:-1] + weights[-1]


def best_setting(table: Floats) -> tuple[float, float]:
    """Return C and gamma of the best mean accuracy, equal ones by smaller C, then smaller gamma."""
    # Means of the same accuracies may differ in their last bits.
    best = table[table[:, 2] >= table[:, 2].max() - 1e-12]
    c, gamma = min((float(row[0]), float(row[1])) for row in best)
    return c, gamma


def _gamma_grid(between: Floats, kernel: str) -> tuple[float, ...]:
    """Return the gammas to try.

    Args:
        between: ``kernels.compare`` of the references with themselves, float64 [R, R].
        kernel: one of ``config.KERNELS``; those without a gamma try 0 alone.
    """
    if not KERNELS[kernel].has_gamma:
        return (0.0,)
    unit = float(between.sum()) / (len(between) * (len(between) - 1))
    return tuple(factor / (unit or 1.0) for factor in GAMMA_FACTORS)
