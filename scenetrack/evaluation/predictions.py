"""Predictions per image: written as a CSV table, and read back to compare runs."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from scenetrack.errors import ModelError
from scenetrack.records import Table
from scenetrack.system.files import printable
from scenetrack.system.spreadsheets import unguarded

PREDICTIONS = "predictions.csv"
_COLUMNS = ("file", "label", "predicted", "score")
_PROBABILITY, _OF_CLASS = "probability", "probability of "
# What sums and differences of numbers of seven digits may be off by.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Predictions:
    """What a method said of each image.

    Attributes:
        files: N names, CLASS/FILE.
        class_names: C names.
        labels: int64 [N], the true classes.
        predictions: int64 [N].
        probabilities: float64 [N, C], or None where the method gave none.
    """

    files: tuple[str, ...]
    class_names: tuple[str, ...]
    labels: np.ndarray = field(repr=False)
    predictions: np.ndarray = field(repr=False)
    probabilities: np.ndarray | None = field(repr=False)


def prediction_table(predictions: Predictions, scores: np.ndarray | None) -> Table:
    """Tabulate each image: file, label, predicted class, its score, and all probabilities.

    Args:
        said: the predictions.
        scores: float [N], the predicted class's score, or None.
    """
    names = predictions.class_names
    columns = [*_COLUMNS, _PROBABILITY, *(_OF_CLASS + name for name in names)]
    shown: list[list[object]] = [[""] * (1 + len(names))] * len(predictions.files)
    if predictions.probabilities is not None:
        own = np.take_along_axis(
            predictions.probabilities, predictions.predictions[:, None], axis=1
        )
        # Seven digits, as many as the float32 networks behind them have.
        shown = np.char.mod("%.7g", np.hstack([own, predictions.probabilities])).tolist()
    every_score = [""] * len(predictions.files) if scores is None else scores.tolist()
    given = zip(
        predictions.files,
        predictions.labels,
        predictions.predictions,
        every_score,
        shown,
        strict=True,
    )
    rows = [
        (file, names[label], names[predicted], score, *texts)
        for file, label, predicted, score, texts in given
    ]
    return Table(PREDICTIONS, columns, rows)


def read_predictions(path: Path, class_names: Sequence[str] = ()) -> Predictions:
    """Read the predictions that ``prediction_table`` wrote.

    Args:
        path: the CSV file. One without probabilities, as scenetrack wrote it before 0.3, will do.
        class_names: in the order wanted, where the file names none.

    Raises:
        ModelError: the file is no such table, is damaged, or contradicts itself: names a file
            twice, or has probabilities that are none or speak for another class than the
            predicted one.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = ([unguarded(cell) for cell in row] for row in csv.reader(file))
        if tuple(header[:4]) != _COLUMNS or not rows:
            raise ValueError(f"its columns are {', '.join(header[:6])}, with {len(rows)} rows")
        return _parsed(header, rows, class_names)
    except (OSError, ValueError, csv.Error) as error:
        raise ModelError(
            f"a table of predictions with the columns {', '.join(_COLUMNS)} is required, but "
            f"{printable(path)} is none ({error}): run the stage again"
        ) from error


def _parsed(
    header: Sequence[str], rows: Sequence[Sequence[str]], class_names: Sequence[str]
) -> Predictions:
    _refuse_first(rows, [len(row) != len(header) for row in rows], "has other columns")
    files, labels, predicted, scores, *others = zip(*rows, strict=True)
    again = np.ones(len(files), np.bool_)
    again[np.unique(files, return_index=True)[1]] = False
    _refuse_first(rows, again, "names a file for the second time")
    names = tuple(_named(header)) or tuple(class_names) or tuple(sorted({*labels, *predicted}))
    places = {name: index for index, name in enumerate(names)}
    if len(places) < len(names):
        raise ValueError("it names a class twice")
    unknown = sorted({*labels, *predicted} - places.keys())
    if unknown:
        raise ValueError(f"it names the class {unknown[0]!r}, which is none of {', '.join(names)}")
    predicted_labels = np.array([places[name] for name in predicted], dtype=np.int64)
    if any(scores):
        _refuse_first(rows, ~np.isfinite(_numbers(rows, scores)), "has a score that is not finite")
    return Predictions(
        files=files,
        class_names=names,
        labels=np.array([places[name] for name in labels], dtype=np.int64),
        predictions=predicted_labels,
        probabilities=_probabilities(rows, others, predicted_labels),
    )


def _probabilities(
    rows: Sequence[Sequence[str]], columns: Sequence[Sequence[str]], predicted_labels: np.ndarray
) -> np.ndarray | None:
    """Parse the columns as float64 [N, C], the predicted class's own first; None without any.

    Raises:
        ValueError: they are no probabilities, or do not speak for the classes ``said``.
    """
    if not any(any(column) for column in columns):
        return None
    own, *every = (_numbers(rows, column) for column in columns)
    shares = np.stack(every, axis=1)
    # Written so that NaN fails.
    inside = ((shares >= 0) & (shares <= 1 + _ROUNDING)).all(axis=1)
    _refuse_first(rows, ~inside, "has a probability outside 0 to 1")
    total = np.abs(shares.sum(axis=1) - 1)
    _refuse_first(rows, ~(total <= _ROUNDING), "has probabilities that do not sum to 1")
    of_predicted = shares[np.arange(len(predicted_labels)), predicted_labels]
    _refuse_first(
        rows,
        of_predicted < shares.max(axis=1) - _ROUNDING,
        "has a predicted class that another one is more probable than",
    )
    _refuse_first(
        rows,
        ~(np.abs(own - of_predicted) <= _ROUNDING),
        "has two probabilities of the predicted class",
    )
    return shares


def _numbers(rows: Sequence[Sequence[str]], column: Sequence[str]) -> np.ndarray:
    """Parse a column of texts as float64 [N]."""
    values = np.empty(len(column))
    for place, text in enumerate(column):
        try:
            values[place] = float(text)
        except ValueError:
            raise _contradiction(rows, place, f"has {text!r} for a number") from None
    return values


def _refuse_first(rows: Sequence[Sequence[str]], wrong: ArrayLike, what: str) -> None:
    """Raise ValueError about the first row that is ``wrong``, bool [N], if any is."""
    if np.any(wrong):
        raise _contradiction(rows, int(np.argmax(wrong)), what)


def _contradiction(rows: Sequence[Sequence[str]], place: int, what: str) -> ValueError:
    name = f" ({printable(rows[place][0])})" if rows[place] else ""
    return ValueError(f"row {place + 1}{name} {what}")


def _named(header: Sequence[str]) -> Iterator[str]:
    """Return the classes that have a column of probabilities."""
    for place, column in enumerate(header[len(_COLUMNS) :]):
        if not (column.startswith(_OF_CLASS) if place else column == _PROBABILITY):
            raise ValueError(f"it has the column {column!r}")
        if place:
            yield column.removeprefix(_OF_CLASS)
