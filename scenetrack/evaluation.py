"""What predictions are worth: accuracy with its interval, per class, and method against method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist

import numpy as np

from scenetrack.errors import DataError, ScenetrackError
from scenetrack.figures import comparison, confusion_matrix
from scenetrack.records import Record, Table, metrics


@dataclass(frozen=True)
class ClassScores:
    """One class of an evaluation; precision, recall and f1 are 0 where they are undefined."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class McNemarResult:
    """Two methods on the same images.

    Attributes:
        b: images that only the first method has right.
        c: images that only the second method has right.
        p: two-sided probability of a split at least as uneven if the methods were equally good.
    """

    b: int
    c: int
    p: float


@dataclass(frozen=True)
class Evaluation:
    """What one method's predictions of a set of images are worth.

    Attributes:
        class_names: C names.
        labels: int64 [N], the true classes.
        predictions: int64 [N].
        scores: float [N], the predicted class's score, or None where a method gives none.
        accuracy, low, high: share of right predictions and its 95% Wilson interval, in [0, 1].
        macro_f1: mean F1 over the classes that occur among labels or predictions.
        per_class: one entry per class.
        confusion: int64 [C, C], rows are the true classes, columns the predicted ones.
    """

    class_names: tuple[str, ...]
    labels: np.ndarray = field(repr=False)
    predictions: np.ndarray = field(repr=False)
    scores: np.ndarray | None = field(repr=False)
    accuracy: float
    low: float
    high: float
    macro_f1: float
    per_class: tuple[ClassScores, ...] = field(repr=False)
    confusion: np.ndarray = field(repr=False)

    def metrics(self, prefix: str = "test") -> dict[str, float]:
        """The figures under the names that every run uses, such as ``test/accuracy_low``."""
        return {
            f"{prefix}/accuracy": self.accuracy,
            f"{prefix}/accuracy_low": self.low,
            f"{prefix}/accuracy_high": self.high,
            f"{prefix}/macro_f1": self.macro_f1,
        }

    def records(
        self, files: Sequence[Path | str], *, title: str = "", prefix: str = "test"
    ) -> list[Record]:
        """Everything worth keeping: metrics, confusion matrix, per-class table, predictions.

        Args:
            files: N names of the images, in the order of the labels.
            title: name of the method, above the confusion matrix.
            prefix: of the metric names.
        """
        return [
            *metrics(self.metrics(prefix)),
            confusion_matrix(self.confusion, self.class_names, title),
            self._class_table(),
            self._prediction_table(files),
        ]

    def summary(self, name: str) -> str:
        """Two lines for people: how many are right, and the commonest mistake."""
        right = int(np.trace(self.confusion))
        lines = [
            f"{name}: {right} of {len(self.labels)} test images right, {self.accuracy:.1%} "
            f"(95% interval {self.low:.1%} to {self.high:.1%}), macro F1 {self.macro_f1:.3f}"
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

    def _prediction_table(self, files: Sequence[Path | str]) -> Table:
        scores = [""] * len(self.labels) if self.scores is None else self.scores.tolist()
        rows = [
            (str(file), self.class_names[label], self.class_names[predicted], score)
            for file, label, predicted, score in zip(
                files, self.labels, self.predictions, scores, strict=True
            )
        ]
        return Table("predictions.csv", ("file", "label", "predicted", "score"), rows)


def evaluate(labels: np.ndarray, scores: np.ndarray, class_names: Sequence[str]) -> Evaluation:
    """Judge predictions.

    Args:
        labels: int [N], the true classes, 0 to C - 1.
        scores: float [N, C], the highest of a row being the prediction; or int [N], predictions.
        class_names: C names.

    Raises:
        DataError: there is not one image.
        ScenetrackError: the arrays do not fit each other, or a score is not a number.
    """
    labels = np.asarray(labels, dtype=np.int64)
    scores = np.asarray(scores)
    _check_scores(labels, scores, len(class_names))
    predictions = scores.argmax(axis=1) if scores.ndim == 2 else scores.astype(np.int64)
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
        accuracy=correct / len(labels),
        low=low,
        high=high,
        macro_f1=float(
            np.mean([c.f1 for c, occurs in zip(per_class, occurring, strict=True) if occurs])
        ),
        per_class=per_class,
        confusion=confusion,
    )


def wilson_interval(correct: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """The score interval of a share, which stays inside [0, 1] and is good for small samples.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference,
    Journal of the American Statistical Association 22 (1927), 209-212.

    Raises:
        DataError: ``total`` is not positive.
    """
    if total <= 0:
        raise DataError(f"at least one test image is required. Received: {total} images")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = correct / total
    shrink = 1 + z**2 / total
    centre = (share + z**2 / (2 * total)) / shrink
    half = z * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)) / shrink
    # At 0 and 1 the bound is exact on paper and off by one rounding in floating point.
    low = 0.0 if correct == 0 else centre - half
    high = 1.0 if correct == total else centre + half
    return low, high


def mcnemar(labels: np.ndarray, predicted_a: np.ndarray, predicted_b: np.ndarray) -> McNemarResult:
    """The exact test whether two methods are equally often right on the same images.

    Args:
        labels, predicted_a, predicted_b: int [N].

    Source: Q. McNemar, Note on the sampling error of the difference between correlated
    proportions or percentages, Psychometrika 12 (1947), 153-157; exact binomial form, two-sided.
    """
    right_a, right_b = predicted_a == labels, predicted_b == labels
    b = int(np.sum(right_a & ~right_b))
    c = int(np.sum(~right_a & right_b))
    # Whole numbers until the one division: exact however many images differ.
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1))
    return McNemarResult(b, c, min(1.0, 2 * tail / 2 ** (b + c)))


def comparison_table(evaluations: Mapping[str, Evaluation], against: str = "") -> Table:
    """The methods best first, each with its interval and McNemar's p.

    Args:
        evaluations: by name of the method, all of the same images.
        against: the method that the others are tested against; empty: the first one.

    Raises:
        ScenetrackError: the evaluations are not of the same images.
    """
    against = against or next(iter(evaluations))
    reference = evaluations[against]
    rows = []
    for name, one in _best_first(evaluations):
        if not np.array_equal(one.labels, reference.labels):
            raise ScenetrackError(
                f"methods are compared on the same images, but {name!r} and {against!r} were "
                "tested on different ones"
            )
        p = None
        if name != against:
            p = mcnemar(one.labels, reference.predictions, one.predictions).p
        rows.append((name, one.accuracy, one.low, one.high, one.macro_f1, p))
    columns = ("method", "accuracy", "low", "high", "macro_f1", f"p against {against}")
    return Table("comparison.json", columns, rows)


def comparison_text(evaluations: Mapping[str, Evaluation], against: str = "") -> str:
    """The comparison table as aligned lines for the terminal, best first."""
    table = comparison_table(evaluations, against)
    cells = [("method", "accuracy", "95% interval", "macro F1", table.columns[-1])]
    for name, accuracy, low, high, macro_f1, p in table.rows:
        interval = f"{low:.1%} - {high:.1%}"
        cells.append((str(name), f"{accuracy:.1%}", interval, f"{macro_f1:.3f}", _p_text(p)))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def comparison_records(
    evaluations: Mapping[str, Evaluation], against: str = "", title: str = ""
) -> list[Record]:
    """The comparison as a table for the tracker and as a figure."""
    bars = [(name, one.accuracy, one.low, one.high) for name, one in _best_first(evaluations)]
    return [comparison_table(evaluations, against), comparison(bars, title)]


def _best_first(evaluations: Mapping[str, Evaluation]) -> list[tuple[str, Evaluation]]:
    return sorted(evaluations.items(), key=lambda item: -item[1].accuracy)


def _p_text(p: object) -> str:
    if not isinstance(p, float):
        return ""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def _check_scores(labels: np.ndarray, scores: np.ndarray, classes: int) -> None:
    if not len(labels):
        raise DataError("at least one test image is required. Received: none")
    if scores.shape not in ((len(labels),), (len(labels), classes)):
        raise ScenetrackError(
            f"scores of {len(labels)} images and {classes} classes are required. Received: an "
            f"array of shape {scores.shape}"
        )
    if not np.isfinite(scores).all():
        raise ScenetrackError(
            "every score must be a finite number, but some are not: the method diverged; try a "
            "lower learning rate"
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
