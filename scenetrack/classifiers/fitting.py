"""Fit one-vs-rest SVMs of all classes, with the exact kernel or with landmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, TypedDict

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from scenetrack.classifiers.feature_rows import Floats, Rows, column_parts
from scenetrack.classifiers.kernel_maps import as_landmarks, draw_landmarks, mapped, whitening
from scenetrack.classifiers.kernels import compare, kernel_matrix
from scenetrack.classifiers.svm import Float32Array, kernel_machines, mapped_machines

# An image compared with itself gives about 1 in every kernel, so one grid serves all. On the real
# split nearly every dual coefficient is at its bound below this grid, and hardly any above it.
C_GRID = tuple(float(c) for c in np.logspace(-1, 2, 7))


class Learnt(TypedDict):
    """Fields of a ``FittedClassifier``."""

    mean: Floats
    scale: Floats
    support: Float32Array
    dual: Floats
    intercept: Floats


@dataclass(frozen=True)
class Fitting:
    """Images compared with those that they are fitted by: with all, or with landmarks.

    Attributes:
        kernel: one of ``config.KERNELS``.
        targets: classes, int64 [N], 0 to n_classes - 1.
        rows: the images, prepared as a whole.
        references: which of them are compared with, int64 [R] ascending.
        others: those: ``rows`` itself, or landmarks of an explicit map.
        compared: ``kernels.compare`` of both, float64 [N, R].
    """

    kernel: str
    targets: NDArray[np.int64]
    rows: Rows
    references: NDArray[np.int64]
    others: Rows
    compared: Floats

    @classmethod
    def of(
        cls,
        values: NDArray[np.floating[Any]],
        targets: NDArray[np.int64],
        kernel: str,
        preparation: str,
        explicit_map: bool,
        seed: int,
    ) -> Self:
        """Prepare and compare ``values`` [N, D]; ``seed`` draws the landmarks of a map."""
        rows = Rows.standardised(values, preparation)
        others, references = rows, np.arange(len(values))
        if explicit_map:
            references = draw_landmarks(targets, seed)
            others = as_landmarks(rows.like(values[references]))
        return cls(kernel, targets, rows, references, others, compare(rows, others, kernel))

    @property
    def explicit_map(self) -> bool:
        """Whether the kernel is approximated by landmarks."""
        return self.others is not self.rows

    @property
    def between(self) -> Floats:
        """The references compared with themselves, float64 [R, R]."""
        return self.compared[self.references] if self.explicit_map else self.compared

    def machines(self, c: float, gamma: float) -> Learnt:
        """Fit each class against the others."""
        if self.explicit_map:
            whiten = whitening(kernel_matrix(self.between, self.kernel, gamma))
            features = mapped(self.compared, self.kernel, gamma, whiten)
            # Its products are too narrow for several threads, which slow each other down.
            with threadpool_limits(1):
                weights = self._along_c(features, c).astype(np.float64)
            dual, intercept = (whiten @ weights[:-1]).T, weights[-1]
        else:
            matrix = kernel_matrix(self.compared, self.kernel, gamma)
            dual, intercept = kernel_machines(matrix, self.targets, c)
        support, dual = _compact(self.others, dual, self.kernel)
        return Learnt(
            mean=self.rows.mean,
            scale=self.rows.scale,
            support=support,
            dual=dual,
            intercept=intercept,
        )

    def _along_c(self, features: Float32Array, c: float) -> Float32Array:
        """Fit to mapped features along the grid of C up to ``c``.

        As cross-validation does: each C starts where the one before ended. From zeros the same
        tolerance ends farther from the optimum, at other machines than those that were judged.
        """
        first, *others = (*(smaller for smaller in C_GRID if smaller < c), c)
        weights = mapped_machines(features, self.targets, first)
        for larger in others:
            weights = mapped_machines(features, self.targets, larger, weights)
        return weights


def _compact(rows: Rows, dual: Floats, kernel: str) -> tuple[Float32Array, Floats]:
    """Keep the support vectors [S, D] that any machine uses and their dual [n_classes, S]."""
    # In float32 steps, to be stored in half the room; most features are so already.
    if kernel == "linear":
        weights = [dual @ columns for columns, _ in column_parts(rows, rows)]
        return np.concatenate(weights, axis=1).astype(np.float32), np.eye(len(dual))
    used = dual.any(axis=0)
    return as_landmarks(rows.like(rows.values[used])).values, dual[:, used]
