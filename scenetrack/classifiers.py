"""Support vector machines on one vector per image: four kernels, settings chosen inside train.

Every kernel ends in the same few arrays: scores = K(x, support) @ dual.T + intercept, one row of
``dual`` per class, each class trained against all others. So a fitted classifier is saved without
pickles and scored with NumPy alone, and a new kernel adds one function.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto
from sklearn import config_context
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC

from scenetrack.config import KERNELS
from scenetrack.errors import InputError
from scenetrack.graph import GraphBuilder
from scenetrack.kernels import (
    HISTOGRAM_KERNELS,
    Floats,
    change_in_graph,
    compare,
    compare_in_graph,
    kernel_in_graph,
    kernel_matrix,
)

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


@dataclass(frozen=True)
class ScoreTensors:
    """Tensors of a classifier in a graph, by name.

    Attributes:
        prepared: float64 [N, D], as the kernel takes them.
        support: float64 [S, D].
        similar: float64 [N, S], the kernel of both.
        dual: float64 [n_classes, S].
        scores: float64 [N, n_classes].
    """

    prepared: str
    support: str
    similar: str
    dual: str
    scores: str


@dataclass(frozen=True)
class FittedClassifier:
    """One linear machine per class in the feature space of a kernel.

    Attributes:
        kernel: one of ``config.KERNELS``.
        gamma: 1 over the unit of the distance in rbf and chi2; 0 for the other kernels.
        square_root: 1 where features are square-rooted first (Hellinger), else 0.
        mean: float64 [D], taken off after that.
        scale: float64 [D], divided by after that.
        support: float64 [S, D], prepared support vectors; for the linear kernel the weight vector
            of each class, S = n_classes.
        dual: float64 [n_classes, S].
        intercept: float64 [n_classes].
        classes: int64 [n_classes], the labels in ascending order: the columns of the scores.
        C: penalty of a margin violation, chosen by cross-validation as gamma is.
        cv_table: float64 [n_settings, 4], for every setting tried: C, gamma, mean and standard
            deviation over the folds of the accuracy in [0, 1].
    """

    kernel: str
    gamma: float
    square_root: int
    mean: Floats
    scale: Floats
    support: Floats
    dual: Floats
    intercept: Floats
    classes: NDArray[np.int64]
    C: float
    cv_table: Floats

    @property
    def best_params(self) -> dict[str, float]:
        """The chosen setting: C, and gamma where the kernel has one."""
        return {"C": self.C, "gamma": self.gamma} if self.gamma else {"C": self.C}

    @property
    def cv_accuracy(self) -> float:
        """Mean accuracy of the chosen setting over the folds, in [0, 1]."""
        return float(self._chosen[2])

    @property
    def cv_std(self) -> float:
        """Standard deviation of that accuracy over the folds."""
        return float(self._chosen[3])

    @property
    def _chosen(self) -> Floats:
        settings = self.cv_table[:, :2]
        return np.asarray(self.cv_table[(settings == (self.C, self.gamma)).all(axis=1)][0])

    def predict_scores(self, features: ArrayLike) -> Floats:
        """The score of every class, above 0 where its machine says yes.

        Args:
            features: [N, D], as at fit.

        Returns:
            float64 [N, n_classes], columns in the order of ``classes``.

        Raises:
            InputError: another D than at fit, values not finite, or negative values where
                histograms are required.
        """
        rows = _checked_features(features, bool(self.square_root), self.kernel)
        if rows.shape[1] != self.mean.size:
            raise InputError(
                f"features must have {self.mean.size} values, as at fit. Received: {rows.shape[1]}"
            )
        prepared = _prepared(rows, bool(self.square_root), self.mean, self.scale)
        compared = compare(prepared, self.support, self.kernel)
        return np.asarray(
            kernel_matrix(compared, self.kernel, self.gamma) @ self.dual.T + self.intercept
        )

    def to_graph(self, builder: GraphBuilder, features: str) -> ScoreTensors:
        """The twin of ``predict_scores`` for ``features`` float32 [N, D]."""
        with builder.scope("svm"):
            rows = builder.node("Cast", features, name="float64", to=TensorProto.DOUBLE)
            if self.square_root:
                rows = builder.node("Sqrt", rows)
            if self.mean.any():
                rows = builder.node("Sub", rows, builder.constant("mean", self.mean))
            if (self.scale != 1).any():
                rows = builder.node("Div", rows, builder.constant("scale", self.scale))
            support = _stored(builder, "support", self.support)
            compared = compare_in_graph(builder, rows, support, self.kernel)
            similar = kernel_in_graph(builder, compared, self.kernel, self.gamma)
            dual = builder.constant("dual", self.dual)
            weights = builder.node("Transpose", dual, perm=[1, 0])
            weighed = builder.node("MatMul", similar, weights)
            intercept = builder.constant("intercept", self.intercept)
            scores = builder.node("Add", weighed, intercept, name="scores")
        return ScoreTensors(rows, support, similar, dual, scores)

    def evidence_in_graph(self, builder: GraphBuilder, tensors: ScoreTensors, words: str) -> str:
        """How much each patch of an image spoke for each class.

        That is what the class's score loses when the patch is left out of the histogram: its word
        counts one less, and the other words' shares stay as they are. In every kernel such a
        change touches one term of each comparison, so all words together cost no more than a few
        comparisons.

        Args:
            tensors: what ``to_graph`` gave for histograms.
            words: of the patches, int64 [N, n].

        Returns:
            float32 [N, n, n_classes].
        """

        def explain(image: GraphBuilder, row: str, similar: str, words: str) -> list[str]:
            fewer = _one_less(image, row, words, square_root=bool(self.square_root))
            machine = (self.kernel, self.gamma)
            lost = change_in_graph(image, (row, fewer), tensors.support, similar, machine)
            by_class = image.node("MatMul", tensors.dual, lost)  # C x K
            by_word = image.node("Transpose", by_class, perm=[1, 0])
            of_patches = image.node("Gather", by_word, words, axis=0)
            return [image.node("Cast", of_patches, to=TensorProto.FLOAT)]

        with builder.scope("evidence"):
            inputs = [tensors.prepared, tensors.similar, words]
            return builder.each(inputs, explain, [np.float64, np.float64, np.int64])[0]

    def predict(self, features: ArrayLike) -> NDArray[np.int64]:
        """The label with the highest score of each row of ``features`` [N, D]: int64 [N]."""
        return np.asarray(self.classes[np.argmax(self.predict_scores(features), axis=1)])

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All fields as arrays without objects, for ``numpy.savez``."""
        return {
            item.name: np.asarray(getattr(self, item.name)) for item in dataclasses.fields(self)
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The classifier whose ``to_arrays`` gave ``arrays``; its scores are the same.

        Raises:
            InputError: an array is missing.
        """
        names = [item.name for item in dataclasses.fields(cls)]
        missing = sorted(set(names) - set(arrays))
        if missing:
            raise InputError(
                f"a saved classifier needs {', '.join(names)}. Missing: {', '.join(missing)}; "
                "save it again"
            )
        values: dict[str, Any] = {name: np.asarray(arrays[name]) for name in names}
        return cls(**{name: v if v.ndim else v.item() for name, v in values.items()})


def fit_by_cross_validation(
    features: ArrayLike,
    labels: ArrayLike,
    kernel: str,
    *,
    histograms: bool,
    folds: int,
    seed: int,
) -> FittedClassifier:
    """Choose C and gamma by stratified cross-validation, then fit on all of ``features``.

    Histograms are square-rooted for linear and rbf and compared as they are by chi2 and
    intersection. Other features are standardised for linear and rbf, in each fold by its own
    training part. Of equally accurate settings the smallest C wins, then the smallest gamma.

    Args:
        features: [N, D], finite; not negative where ``histograms`` is set or the kernel is chi2
            or intersection.
        labels: [N] integers.
        kernel: one of ``config.KERNELS``.
        histograms: whether the features are histograms.
        folds: number of folds, made smaller where a class has fewer images.
        seed: draws the folds.

    Raises:
        InputError: an unknown kernel, features or labels that do not fit, fewer than two classes,
            or a class with one image.
    """
    if kernel not in KERNELS:
        raise InputError(f"kernel must be one of: {', '.join(KERNELS)}. Received: {kernel!r}")
    rows = _checked_features(features, histograms, kernel)
    classes, targets = _checked_labels(labels, len(rows))
    folds = _usable_folds(targets, classes, folds)
    square_root = histograms and kernel not in HISTOGRAM_KERNELS
    rows = _prepared(rows, square_root)
    standardise = not histograms and kernel not in HISTOGRAM_KERNELS
    mean, scale = _standards(rows, standardise)
    prepared = _prepared(rows, False, mean, scale)
    compared = compare(prepared, prepared, kernel)
    gammas = _gamma_grid(compared, kernel)
    compare_fold = _fold_comparison(rows, compared, kernel, standardise)
    table = _cross_validate(compare_fold, targets, kernel, gammas, folds, seed)
    best_c, gamma = _choose(table)
    dual, intercept = _machines(kernel_matrix(compared, kernel, gamma), targets, best_c)
    support, dual = _compact(prepared, dual, kernel)
    return FittedClassifier(
        kernel,
        gamma,
        int(square_root),
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
    square_root, kernel = bool(classifier.square_root), classifier.kernel
    rows = _prepared(_checked_features(features, square_root, kernel), square_root)
    classes, targets = _checked_labels(labels, len(rows))
    mean, scale = _standards(rows, bool(classifier.mean.any()))
    prepared = _prepared(rows, False, mean, scale)
    matrix = kernel_matrix(compare(prepared, prepared, kernel), kernel, classifier.gamma)
    dual, intercept = _machines(matrix, targets, classifier.C)
    support, dual = _compact(prepared, dual, kernel)
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
    rows: Floats, compared: Floats, kernel: str, standardise: bool
) -> _FoldComparison:
    """From the indices of a fold: train against train, and held out against train.

    ``compared`` of all rows is cut up, unless each fold has its own standardisation.
    """

    def cut(train: NDArray[np.int64], held: NDArray[np.int64]) -> tuple[Floats, Floats]:
        return compared[np.ix_(train, train)], compared[np.ix_(held, train)]

    def standardised(train: NDArray[np.int64], held: NDArray[np.int64]) -> tuple[Floats, Floats]:
        own = _standards(rows[train], True)
        left, right = _prepared(rows[train], False, *own), _prepared(rows[held], False, *own)
        return compare(left, left, kernel), compare(right, left, kernel)

    return standardised if standardise else cut


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


def _compact(prepared: Floats, dual: Floats, kernel: str) -> tuple[Floats, Floats]:
    """The support vectors [S, D] that any machine uses and their dual [n_classes, S]."""
    if kernel == "linear":
        return dual @ prepared, np.eye(len(dual))
    used = dual.any(axis=0)
    # In float32 steps, to be stored in half the room; histograms are so already.
    return prepared[used].astype(np.float32).astype(np.float64), dual[:, used]


def _stored(builder: GraphBuilder, name: str, values: Floats) -> str:
    """Constants as float64, kept in half the room where float32 holds them exactly."""
    single = values.astype(np.float32)
    if not np.array_equal(single, values):
        return builder.constant(name, values)
    stored = builder.constant(name, single)
    return builder.node("Cast", stored, name=f"{name}/float64", to=TensorProto.DOUBLE)


def _one_less(builder: GraphBuilder, row: str, words: str, *, square_root: bool) -> str:
    """A prepared histogram, float64 [K], if each of its ``words`` int64 [n] counted one less.

    Histograms are never standardised, so that the counts can be told from it.
    """
    total = builder.node("Cast", builder.node("Shape", words), to=TensorProto.DOUBLE)
    shares = builder.node("Mul", row, row) if square_root else row
    counts = builder.node("Round", builder.node("Mul", shares, total))
    one, zero = (builder.constant("number", np.array(value)) for value in (1.0, 0.0))
    left = builder.node("Max", builder.node("Sub", counts, one), zero)
    fewer = builder.node("Div", left, total)
    return builder.node("Sqrt", fewer) if square_root else fewer


def _gamma_grid(compared: Floats, kernel: str) -> tuple[float, ...]:
    if kernel not in ("rbf", "chi2"):
        return (0.0,)
    unit = float(compared.sum()) / (len(compared) * (len(compared) - 1))
    return tuple(factor / (unit or 1.0) for factor in GAMMA_FACTORS)


def _standards(rows: Floats, standardise: bool) -> tuple[Floats, Floats]:
    """Mean and scale [D] under which rows have mean 0 and a mean squared length of 1."""
    width = rows.shape[1]
    if not standardise:
        return np.zeros(width), np.ones(width)
    deviation = rows.std(axis=0)
    # Unit length, and not unit variance alone, so that one C grid serves every D.
    return rows.mean(axis=0), np.where(deviation > 0, deviation, 1.0) * np.sqrt(width)


def _prepared(
    rows: Floats, square_root: bool, mean: Floats | float = 0.0, scale: Floats | float = 1.0
) -> Floats:
    return np.asarray(((np.sqrt(rows) if square_root else rows) - mean) / scale)


def _checked_features(features: ArrayLike, histograms: bool, kernel: str) -> Floats:
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim != 2 or not rows.size:
        raise InputError(f"features must be an array [N, D] of N, D > 0. Received: {rows.shape}")
    if not np.isfinite(rows).all():
        raise InputError("features must be finite. Received: NaN or infinity")
    if (histograms or kernel in HISTOGRAM_KERNELS) and rows.min() < 0:
        raise InputError(
            f"the {kernel} kernel compares histograms, which are never negative. Received: a "
            f"smallest value of {rows.min():.3g}; choose linear or rbf for other features"
        )
    return rows


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
