"""Prediction rows, one for each image, as CSV and JSON lines."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scenetrack.system.foreign import parsed_json
from scenetrack.system.spreadsheets import FORMULA, guarded
from scenetrack.system.terminal import HIDDEN

_QUOTED = frozenset('",\r\n')


@dataclass(frozen=True)
class Row:
    """What is told of one image.

    Attributes:
        path: of its file, bytes that are no UTF-8 as lone surrogates (``os.fsdecode``).
        top: classes with their probabilities, the image's own first; empty where it has none.
        error: why it has no class; empty where it has one.
    """

    path: str
    top: tuple[tuple[str, float], ...] = ()
    error: str = ""


def make_rows(
    paths: Sequence[str],
    problems: Mapping[int, str],
    outputs: Mapping[str, np.ndarray],
    classes: Sequence[str],
    top: int,
) -> list[Row]:
    """Make the rows of a batch.

    Args:
        paths: of all its images.
        problems: why the images at these places of ``paths`` have no class.
        outputs: of the bundle for the n other images: ``label`` int64 [n], the class's place in
            ``classes``, and ``probabilities`` float32 [n, C].
        classes: the C names.
        top: classes to tell of each image, at most C of them.
    """
    predicted = zip(outputs["label"], outputs["probabilities"], strict=True)
    return [
        Row(path, error=problems[place])
        if place in problems
        else Row(path, _best(*next(predicted), classes, top))
        for place, path in enumerate(paths)
    ]


def _best(
    label: int, probabilities: np.ndarray, classes: Sequence[str], top: int
) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-probabilities, kind="stable")
    # The label comes first also where rounding has made its probability equal to another one.
    order = np.concatenate([[label], order[order != label]])[:top]
    # Seven digits tell all that a float32 knows.
    return tuple((classes[index], float(f"{probabilities[index]:.7g}")) for index in order)


def columns(top: int) -> list[str]:
    """Return the columns of a table of rows that tell ``top`` classes."""
    ranks = range(2, top + 1)
    later = [name for rank in ranks for name in (f"label_{rank}", f"probability_{rank}")]
    return ["path", "label", "probability", *later, "error"]


def cells(row: Row, top: int) -> list[str | float | None]:
    """Return the row's values in the order of ``columns``, None where there is none."""
    values: list[str | float | None] = [value for pair in row.top[:top] for value in pair]
    values += [None] * (2 * top - len(values))
    return [row.path, *values, row.error or None]


def as_csv(rows: Iterable[Row], top: int, *, header: bool) -> Iterator[bytes]:
    """Write rows as CSV with commas, quotes where needed and newlines, in UTF-8.

    A path that a spreadsheet would take for a formula gets ``./`` before it; a class or an error an
    apostrophe, which ``spreadsheets.unguarded`` takes off again.
    """
    if header:
        yield (",".join(columns(top)) + "\n").encode()
    for row in rows:
        path, *others = cells(row, top)
        values = [f"./{path}" if FORMULA.match(row.path) else path, *map(guarded, others)]
        line = ",".join(map(_csv_cell, values)) + "\n"
        yield line.encode("utf-8", "surrogateescape")


def _csv_cell(value: object) -> str:
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if _QUOTED & set(text) else text


def as_jsonl(rows: Iterable[Row]) -> Iterator[bytes]:
    """Write rows as JSON lines in UTF-8.

    Bytes that are no UTF-8 are written ``\\udcXX``, and what a terminal would obey as its escape in
    JSON: a program reads the same text again.
    """
    for row in rows:
        line = HIDDEN.sub(_escape, json.dumps(_as_dict(row), ensure_ascii=False)) + "\n"
        # What backslashreplace writes for a lone surrogate is its escape in JSON as well.
        yield line.encode("utf-8", "backslashreplace")


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _as_dict(row: Row) -> dict[str, Any]:
    label, probability = row.top[0] if row.top else (None, None)
    return {
        "path": row.path,
        "label": label,
        "probability": probability,
        "top": row.top,
        "error": row.error or None,
    }


def from_json(line: bytes) -> Row:
    """Read the row that a line of ``as_jsonl`` holds.

    Raises:
        ValueError: the line is none or is not whole.
    """
    try:
        values = parsed_json(line)
        top = tuple((str(name), float(probability)) for name, probability in values["top"])
        row = Row(str(values["path"]), top, str(values["error"] or ""))
        os.fsencode(row.path)  # other lone surrogates than those of a path cannot be written
        "".join([*(name for name, _ in top), row.error]).encode()
        if not all(math.isfinite(probability) for _, probability in top):
            raise ValueError("a probability is not finite")
        return row
    except (KeyError, OverflowError, TypeError) as error:
        raise ValueError(f"no row: {error}") from error
