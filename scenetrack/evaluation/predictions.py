"""Predictions of single images as a table, and read back to compare runs long after."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scenetrack.errors import ModelError
from scenetrack.records import Table
from scenetrack.storage import printable

PREDICTIONS = "predictions.csv"
_COLUMNS = ("file", "label", "predicted", "score")
_PROBABILITY, _OF_CLASS = "probability", "probability of "


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


def prediction_table(said: Predictions, scores: np.ndarray | None) -> Table:
    """A row for each image: file, label, predicted class, its score, and all probabilities.

    Args:
        said: the predictions.
        scores: float [N], the predicted class's score, or None.
    """
    names = said.class_names
    columns = [*_COLUMNS, _PROBABILITY, *(_OF_CLASS + name for name in names)]
    shown: list[list[object]] = [[""] * (1 + len(names))] * len(said.files)
    if said.probabilities is not None:
        own = np.take_along_axis(said.probabilities, said.predictions[:, None], axis=1)
        # Seven digits, as many as the float32 networks behind them have.
        shown = np.char.mod("%.7g", np.hstack([own, said.probabilities])).tolist()
    every_score = [""] * len(said.files) if scores is None else scores.tolist()
    given = zip(said.files, said.labels, said.predictions, every_score, shown, strict=True)
    rows = [
        (file, names[label], names[predicted], score, *texts)
        for file, label, predicted, score, texts in given
    ]
    return Table(PREDICTIONS, columns, rows)


def read_predictions(path: Path, class_names: Sequence[str] = ()) -> Predictions:
    """The predictions that ``prediction_table`` wrote.

    Args:
        path: the CSV file. One without probabilities, as scenetrack wrote it before 0.3, will do.
        class_names: in the order wanted, where the file names none.

    Raises:
        ModelError: the file is no such table, or is damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
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
    files, labels, predicted, _, *others = zip(*rows, strict=True)
    names = tuple(_named(header)) or tuple(class_names) or tuple(sorted({*labels, *predicted}))
    places = {name: index for index, name in enumerate(names)}
    unknown = sorted({*labels, *predicted} - places.keys())
    if unknown:
        raise ValueError(f"it names the class {unknown[0]!r}, which is none of {', '.join(names)}")
    probabilities = None
    if others and all(rows[0][len(_COLUMNS) :]):
        probabilities = np.array(others[1:], dtype=np.float64).T
    return Predictions(
        files=files,
        class_names=names,
        labels=np.array([places[name] for name in labels], dtype=np.int64),
        predictions=np.array([places[name] for name in predicted], dtype=np.int64),
        probabilities=probabilities,
    )


def _named(header: Sequence[str]) -> Iterator[str]:
    """The classes that have a column of probabilities."""
    for column in header[len(_COLUMNS) + 1 :]:
        if not column.startswith(_OF_CLASS):
            raise ValueError(f"it has the column {column!r}")
        yield column.removeprefix(_OF_CLASS)
