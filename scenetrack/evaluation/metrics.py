"""Metrics of one method: accuracy, F1, recall per class, confusion matrix, calibration error."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scenetrack.errors import DataError, ScenetrackError
from scenetrack.evaluation.calibration import Reliability, reliability
from scenetrack.evaluation.predictions import Predictions, prediction_table
from scenetrack.evaluation.significance import wilson_interval
from scenetrack.evaluation.temperature_scaling import check_finite_scores
from scenetrack.figures import draw_confusion_matrix, draw_reliability_diagram
from scenetrack.records import Record, Table, metrics

# Of more classes than these a chart for each would bury the others in the UI.
MOST_RECALLS = 50
_SUM_TOLERANCE = 1e-3
# MLflow's rule for the names of metrics, and its limit of 250 characters less the prefix.
_REFUSED_IN_METRICS, _LONGEST_METRIC = re.compile(r"[^\w.\- ]"), 200


@dataclass(frozen=True)
class ClassScores:
    """One class of an evaluation; precision, recall and f1 are 0 where they are undefined."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Evaluation:
    """What one method's predictions of a set of images are worth.

    Attributes:
        class_names: C names.
        labels: int64 [N], the true classes.
        predictions: int64 [N].
        scores: float [N], the predicted class's score, or None where a method gives none.
        probabilities: float64 [N, C], or None where a method gives none.
        accuracy, low, high: share of right predictions and its 95% Wilson interval, in [0, 1].
        macro_f1: mean F1 over the classes that occur among labels or predictions.
        per_class: one entry per class.
        confusion: int64 [C, C], rows are the true classes, columns the predicted ones.
        reliability: confidence against accuracy, or None without probabilities.
    """

    class_names: tuple[str, ...]
    labels: np.ndarray = field(repr=False)
    predictions: np.ndarray = field(repr=False)
    scores: np.ndarray | None = field(repr=False)
    probabilities: np.ndarray | None = field(repr=False)
    accuracy: float
    low: float
    high: float
    macro_f1: float
    per_class: tuple[ClassScores, ...] = field(repr=False)
    confusion: np.ndarray = field(repr=False)
    reliability: Reliability | None = field(repr=False)

    @property
    def ece(self) -> float | None:
        """Expected calibration error, in [0, 1]; None without probabilities."""
        return self.reliability.ece if self.reliability else None

    def metrics(self, prefix: str = "test") -> dict[str, float]:
        """Return the figures under the names that every run uses, such as ``test/accuracy_low``."""
        return {
            f"{prefix}/accuracy": self.accuracy,
            f"{prefix}/accuracy_low": self.low,
            f"{prefix}/accuracy_high": self.high,
            f"{prefix}/macro_f1": self.macro_f1,
            **({f"{prefix}/ece": self.reliability.ece} if self.reliability else {}),
        }

    def recalls(self, prefix: str = "test") -> dict[str, float]:
        """Return ``test/recall/CLASS`` of each class with images; nothing for more than 50 classes.

        A character that no metric's name may have becomes an underscore, and of two classes that
        so get one name the later one has a number too.
        """
        if len(self.class_names) > MOST_RECALLS:
            return {}
        values: dict[str, float] = {}
        for number, class_scores in enumerate(self.per_class):
            shown = _REFUSED_IN_METRICS.sub("_", class_scores.name)[:_LONGEST_METRIC]
            name = f"{prefix}/recall/{shown}"
            if class_scores.support:
                values[f"{name} {number}" if name in values else name] = class_scores.recall
        return values

    def records(
        self, files: Sequence[Path | str], *, title: str = "", prefix: str = "test"
    ) -> list[Record]:
        """Return everything worth keeping: metrics, figures, per-class table, predictions.

        Args:
            files: N names of the images, in the order of the labels.
            title: name of the method, above the figures.
            prefix: of the metric names.
        """
        diagrams: list[Record] = []
        if self.reliability:
            counts = self.reliability.counts
            shares = self.reliability.confidence, self.reliability.accuracy
            diagrams = [draw_reliability_diagram(counts, *shares, self.reliability.ece, title)]
        return [
            *metrics({**self.metrics(prefix), **self.recalls(prefix)}),
            draw_confusion_matrix(self.confusion, self.class_names, title),
            *diagrams,
            self._class_table(),
            prediction_table(self._said(files), self.scores),
        ]

    def mistakes(self, most: int) -> np.ndarray:
        """Return the indices of the wrong predictions, those of the highest probability first.

        Args:
            most: how many at most.

        Returns:
            int64 [K]; empty without probabilities.
        """
        if self.probabilities is None:
            return np.zeros(0, np.int64)
        wrong = np.flatnonzero(self.predictions != self.labels)
        confidence = self.probabilities[wrong, self.predictions[wrong]]
        return wrong[np.argsort(-confidence, kind="stable")[:most]]

    def summary(self, name: str) -> str:
        """Return two lines for people: how many are right, and the commonest mistake."""
        right = int(np.trace(self.confusion))
        ece = f", ECE {self.ece:.3f}" if self.ece is not None else ""
        lines = [
            f"{name}: {right} of {len(self.labels)} test images right, {self.accuracy:.1%} "
            f"(95% interval {self.low:.1%} to {self.high:.1%}), macro F1 {self.macro_f1:.3f}{ece}"
        ]
        mistakes = self.confusion - np.diag(np.diag(self.confusion))
        if mistakes.any():
            true, predicted = np.unravel_index(int(mistakes.argmax()), mistakes.shape)
            lines.append(
                f"commonest mistake: {self.class_names[true]} taken for "
                f"{self.class_names[predicted]}, {mistakes[true, predicted]} of "
                f"{self.per_class[true].support} images"
            )
        return "\n".join(lines)

    def _class_table(self) -> Table:
        rows = [
            (c.name, round(c.precision, 4), round(c.recall, 4), round(c.f1, 4), c.support)
            for c in self.per_class
        ]
        return Table("per_class.json", ("class", "precision", "recall", "f1", "images"), rows)

    def _said(self, files: Sequence[Path | str]) -> Predictions:
        names = tuple(map(str, files))
        return Predictions(
            names, self.class_names, self.labels, self.predictions, self.probabilities
        )


def evaluate(
    labels: np.ndarray,
    scores: np.ndarray,
    class_names: Sequence[str],
    probabilities: np.ndarray | None = None,
) -> Evaluation:
    """Judge predictions.

    Args:
        labels: int [N], the true classes, 0 to C - 1.
        scores: float [N, C], the highest of a row being the prediction; or int [N], predictions.
        class_names: C names.
        probabilities: float [N, C], each row in [0, 1] and summing to 1, such as
            ``calibration.softmax(scores, temperature)``; None where there are none.

    Raises:
        DataError: there is not one image.
        ScenetrackError: the arrays do not fit each other, or a score is not a number.
    """
    labels = np.asarray(labels, dtype=np.int64)
    scores = np.asarray(scores)
    _check_scores(labels, scores, len(class_names))
    predictions = scores.argmax(axis=1) if scores.ndim == 2 else scores.astype(np.int64)
    trusted = None
    if probabilities is not None:
        probabilities = np.asarray(probabilities, np.float64)
        _check_probabilities(probabilities, (len(labels), len(class_names)))
        confidence = probabilities[np.arange(len(labels)), predictions]
        trusted = reliability(confidence, predictions == labels)
    confusion = np.zeros((len(class_names), len(class_names)), dtype=np.int64)
    np.add.at(confusion, (labels, predictions), 1)
    correct = int(np.trace(confusion))
    low, high = wilson_interval(correct, len(labels))
    per_class = _class_scores(confusion, class_names)
    occurring = (confusion.sum(axis=0) + confusion.sum(axis=1)) > 0
    return Evaluation(
        class_names=tuple(class_names),
        labels=labels,
        predictions=predictions,
        scores=scores.max(axis=1) if scores.ndim == 2 else None,
        probabilities=probabilities,
        accuracy=correct / len(labels),
        low=low,
        high=high,
        macro_f1=float(
            np.mean([c.f1 for c, occurs in zip(per_class, occurring, strict=True) if occurs])
        ),
        per_class=per_class,
        confusion=confusion,
        reliability=trusted,
    )


def _check_scores(labels: np.ndarray, scores: np.ndarray, classes: int) -> None:
    if not len(labels):
        raise DataError("at least one test image is required. Received: none")
    if scores.shape not in ((len(labels),), (len(labels), classes)):
        raise ScenetrackError(
            f"scores of {len(labels)} images and {classes} classes are required. Received: an "
            f"array of shape {scores.shape}"
        )
    check_finite_scores(scores)


def _check_probabilities(probabilities: np.ndarray, shape: tuple[int, int]) -> None:
    if probabilities.shape != shape:
        raise ScenetrackError(
            f"probabilities of {shape[0]} images and {shape[1]} classes are required. Received: "
            f"an array of shape {probabilities.shape}"
        )
    sums = probabilities.sum(axis=1)
    # Written so that NaN, which compares with nothing, is refused as well.
    if not ((probabilities >= 0).all() and (np.abs(sums - 1) <= _SUM_TOLERANCE).all()):
        raise ScenetrackError(
            "each image's probabilities must be at least 0 and sum to 1. Received: values from "
            f"{probabilities.min():g} with sums from {sums.min():g} to {sums.max():g}; take the "
            "softmax of scores"
        )


def _class_scores(confusion: np.ndarray, class_names: Sequence[str]) -> tuple[ClassScores, ...]:
    right = np.diag(confusion)
    support, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    return tuple(
        ClassScores(
            name=name,
            precision=float(right[k] / max(predicted[k], 1)),
            recall=float(right[k] / max(support[k], 1)),
            f1=float(2 * right[k] / max(support[k] + predicted[k], 1)),
            support=int(support[k]),
        )
        for k, name in enumerate(class_names)
    )
