"""A fitted classifier: saved without pickles, scored with NumPy alone, and as a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto

from scenetrack.classifiers.feature_rows import PREPARATIONS, Floats, Rows, checked_features, parts
from scenetrack.classifiers.kernels import (
    change_in_graph,
    compare,
    compare_in_graph,
    kernel_in_graph,
    kernel_matrix,
    places_above_zero,
)
from scenetrack.classifiers.selection import Selection
from scenetrack.config import KERNELS
from scenetrack.errors import InputError
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.system.arrays import checked_arrays

_SAVED = {
    "kernel": "text",
    "gamma": "numbers",
    "preparation": "text",
    "mean": "numbers M",
    "scale": "numbers M",
    "support": "numbers S D",
    "dual": "numbers C S",
    "intercept": "numbers C",
    "classes": "integers C",
    "C": "numbers",
    "cv_table": "numbers settings 4",
    "seed": "integers",
    "explicit_map": "flag",
    "cv_scope": "text",
}
# Of what is kept otherwise than as float64, where it has axes.
_DTYPES = {"support": np.float32, "classes": np.int64}

# Images scored at a time, so that memory does not grow with the product of both sides.
_SCORED_ROWS = 1024


@dataclass(frozen=True)
class ScoreTensors:
    """Tensors of a classifier in a graph, by name.

    Attributes:
        prepared: float64 [N, D], as the kernel takes them.
        support: float64 [D, S].
        similar: float64 [N, S], the kernel of both.
        weights: float64 [S, n_classes].
        scores: float64 [N, n_classes].
    """

    prepared: str
    support: str
    similar: str
    weights: str
    scores: str


@dataclass(frozen=True)
class FittedClassifier:
    """One linear machine per class in the feature space of a kernel.

    Attributes:
        kernel: one of ``config.KERNELS``.
        gamma: 1 over the unit of the distance in rbf and chi2; 0 for the other kernels.
        preparation: what is done to features first, one of ``PREPARATIONS``.
        mean, scale: float64 [D], of ``standardise``: taken off and divided by after that. Without
            it [1] each, 0 and 1.
        support: float32 [S, D], prepared support vectors, or landmarks of an explicit map; for the
            linear kernel the weight vector of each class, S = n_classes.
        dual: float64 [n_classes, S].
        intercept: float64 [n_classes].
        classes: int64 [n_classes], the labels in ascending order: the columns of the scores.
        C: penalty of a margin violation, chosen by cross-validation as gamma is.
        cv_table: float64 [n_settings, 4], for every setting tried: C, gamma, mean and standard
            deviation over the folds of the accuracy in [0, 1].
        seed: drew the folds, and the landmarks.
        explicit_map: whether the kernel was approximated by landmarks, see ``maps``.
        cv_scope: how the setting was found. "descriptor encoder inside the folds": by transformers
            (PCA, visual words, mixtures) fitted on the training part of each fold alone;
            "classifier only": all folds had the same transformers; "held-out images": by one fold
            of images that no network had learnt from.
        fold_scores: float32 [N, n_classes], scores of every training image at the chosen setting
            by machines and transformers fitted without its fold. None where all folds had the same
            transformers, or it was read from a file, which does not keep them.
        selection: all settings tried, on the images that they were judged by. None where it was
            read from a file.
    """

    kernel: str
    gamma: float
    preparation: str
    mean: Floats
    scale: Floats
    support: NDArray[np.float32]
    dual: Floats
    intercept: Floats
    classes: NDArray[np.int64]
    C: float
    cv_table: Floats
    seed: int
    explicit_map: bool
    cv_scope: str
    fold_scores: NDArray[np.float32] | None = field(default=None, repr=False)
    selection: Selection | None = field(default=None, repr=False)

    @property
    def best_params(self) -> dict[str, float]:
        """The chosen setting: C, and gamma where the kernel has one."""
        return {"C": self.C, "gamma": self.gamma} if self.gamma else {"C": self.C}

    @property
    def provenance(self) -> dict[str, str]:
        """How the setting was found, as a run says it."""
        return {
            "cv_scope": self.cv_scope,
            "kernel_map": "landmarks" if self.explicit_map else "none",
        }

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
        """Score every class, above 0 where its machine says yes.

        Args:
            features: [N, D], as at fit.

        Returns:
            float64 [N, n_classes], columns in the order of ``classes``.

        Raises:
            InputError: another D than at fit, values not finite, or negative values where
                histograms are required.
        """
        values = checked_for(self.kernel, self.preparation, features)
        width = self.support.shape[1]
        if values.shape[1] != width:
            raise InputError(
                f"features must have {width} values, as at fit. Received: {values.shape[1]}"
            )
        scores = np.empty((len(values), len(self.classes)))
        for part in parts(len(values), _SCORED_ROWS):
            rows = Rows(values[part], self.preparation, self.mean, self.scale)
            compared = compare(rows, Rows(self.support), self.kernel)
            similar = kernel_matrix(compared, self.kernel, self.gamma)
            scores[part] = similar @ self.dual.T + self.intercept
        return scores

    def to_graph(self, builder: GraphBuilder, features: str) -> ScoreTensors:
        """Add ``predict_scores`` to a graph, for ``features`` float32 [N, D]."""
        with builder.scope("svm"):
            rows = builder.node("Cast", features, name="float64", to=TensorProto.DOUBLE)
            if self.preparation == "square_root":
                rows = builder.node("Sqrt", rows)
            if self.preparation == "standardise":
                rows = builder.node("Sub", rows, builder.constant("mean", self.mean))
                rows = builder.node("Div", rows, builder.constant("scale", self.scale))
            # Kept in half the room.
            stored = builder.constant("support", self.support.T)
            support = builder.node("Cast", stored, name="support/float64", to=TensorProto.DOUBLE)
            compared = compare_in_graph(builder, rows, support, self.kernel)
            similar = kernel_in_graph(builder, compared, self.kernel, self.gamma)
            weights = builder.constant("dual", self.dual.T)
            weighed = builder.node("MatMul", similar, weights)
            intercept = builder.constant("intercept", self.intercept)
            scores = builder.node("Add", weighed, intercept, name="scores")
        return ScoreTensors(rows, support, similar, weights, scores)

    def evidence_in_graph(self, builder: GraphBuilder, tensors: ScoreTensors, words: str) -> str:
        """Add to a graph how much each patch of an image spoke for each class.

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
            present = places_above_zero(image, row)
            before = image.node("Gather", row, present)
            square_root = self.preparation == "square_root"
            fewer = _one_less(image, before, words, square_root=square_root)
            support = image.node("Gather", tensors.support, present, axis=0)
            machine = (self.kernel, self.gamma)
            lost = change_in_graph(image, (before, fewer), support, similar, machine)
            by_word = image.node("MatMul", lost, tensors.weights)  # words present x C
            order = _places(image, present, self.support.shape[1])
            of_patches = image.node("Gather", by_word, image.node("Gather", order, words), axis=0)
            return [image.node("Cast", of_patches, to=TensorProto.FLOAT)]

        with builder.scope("evidence"):
            inputs = [tensors.prepared, tensors.similar, words]
            return builder.each(inputs, explain, [np.float64, np.float64, np.int64])[0]

    def predict(self, features: ArrayLike) -> NDArray[np.int64]:
        """Return the label with the highest score of each row of ``features`` [N, D]: int64 [N]."""
        return np.asarray(self.classes[np.argmax(self.predict_scores(features), axis=1)])

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all that scores, and how it was found, as plain arrays for ``numpy.savez``."""
        return {name: np.asarray(getattr(self, name)) for name in _SAVED}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Build the classifier whose ``to_arrays`` gave ``arrays``; its scores are the same.

        Raises:
            InputError: an array is missing, does not fit the others or says what cannot be.
        """
        saved = checked_arrays(arrays, _SAVED, "classifier")
        values: dict[str, Any] = {
            name: array.astype(_DTYPES.get(name, np.float64)) if array.ndim else array.item()
            for name, array in saved.items()
        }
        classifier = cls(**values)
        classifier._check_saved()
        return classifier

    def _check_saved(self) -> None:
        """Raise InputError for values that no classifier that was fitted has."""
        width = self.support.shape[1] if self.preparation == "standardise" else 1
        tried = (self.cv_table[:, :2] == (self.C, self.gamma)).all(axis=1)
        needed = {
            f"a kernel of {', '.join(KERNELS)}": self.kernel in KERNELS,
            f"a preparation of {', '.join(PREPARATIONS)}": self.preparation in PREPARATIONS,
            f"{width} values of mean and scale": len(self.mean) == width,
            "a scale above 0": (self.scale > 0).all(),
            "a gamma of at least 0": self.gamma >= 0,
            "a C and gamma of cv_table": tried.any(),
            "classes in ascending order": (np.diff(self.classes) > 0).all(),
        }
        missed = [name for name, is_so in needed.items() if not is_so]
        if missed:
            raise InputError(
                f"a saved classifier needs {missed[0]}. Received: something else; train it again "
                "with this version"
            )


def _one_less(builder: GraphBuilder, row: str, words: str, *, square_root: bool) -> str:
    """Return a prepared histogram's values, float64 [d], were each word counted once less.

    ``words`` int64 [n] tell how many there are. Histograms are never standardised, so that the
    counts can be told from the values.
    """
    total = builder.node("Cast", builder.node("Shape", words), to=TensorProto.DOUBLE)
    shares = builder.node("Mul", row, row) if square_root else row
    counts = builder.node("Round", builder.node("Mul", shares, total))
    one, zero = (builder.constant("number", np.array(value)) for value in (1.0, 0.0))
    left = builder.node("Max", builder.node("Sub", counts, one), zero)
    fewer = builder.node("Div", left, total)
    return builder.node("Sqrt", fewer) if square_root else fewer


def _places(builder: GraphBuilder, present: str, size: int) -> str:
    """Find each of ``size`` words in ``present`` int64 [d]: int64 [size], 0 for absent ones."""
    numbers = [builder.constant("number", np.array(value, np.int64)) for value in (0, 1)]
    count = builder.node("Size", present)
    order = builder.node("Range", numbers[0], count, numbers[1])
    none = builder.constant("none", np.zeros(size, np.int64))
    return builder.node("ScatterElements", none, present, order)


def checked_for(kernel: str, preparation: str, features: ArrayLike) -> NDArray[np.floating[Any]]:
    """Check ``features`` as [N, D]: float32 as they are, all else as float64.

    Raises:
        InputError: another shape, values not finite, or negative ones where a square root is to
            be taken or the kernel compares histograms.
    """
    values = checked_features(features)
    compares_histograms = KERNELS[kernel].of_histograms
    if not compares_histograms and preparation != "square_root":
        return values
    smallest = float(values.min())
    if smallest < 0 and compares_histograms:
        raise InputError(
            f"the {kernel} kernel compares histograms, which are never negative. Received: a "
            f"smallest value of {smallest:.3g}; choose linear or rbf for other features"
        )
    if smallest < 0:
        raise InputError(
            "histograms, which are square-rooted, are never negative. Received: a smallest value "
            f"of {smallest:.3g}; choose the preparation none or standardise for other features"
        )
    return values
