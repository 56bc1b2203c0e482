"""The command ``compare``: finished methods side by side on the same test images."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scenetrack.config import CompareConfig
from scenetrack.errors import InputError, ModelError
from scenetrack.evaluation import (
    PREDICTIONS,
    Evaluation,
    Predictions,
    evaluate,
    method_table,
    pairs_table,
    pairs_text,
    read_predictions,
)
from scenetrack.figures import draw_method_comparison
from scenetrack.records import Table
from scenetrack.system.files import ensure_writable, printable, replacing, user_path
from scenetrack.system.spreadsheets import guarded
from scenetrack.system.terminal import say
from scenetrack.tracking import RunInfo, children, resolve_run, run_file

logger = logging.getLogger(__name__)

_SHORT_ID = 8


@dataclass(frozen=True)
class _Method:
    """The run of a finished method, its name for people, and the run that the user named."""

    run: RunInfo
    name: str
    named: RunInfo


def compare(config: CompareConfig) -> None:
    """Print a table of the methods of all runs named, best first, with p for every pair.

    Nothing is computed anew: each run has kept what it said of every test image. A run of a stage,
    of several seeds or of ``main`` stands for all the methods below it.

    Raises:
        InputError: no run is named, the folder cannot be written, or a run is not there, is not
            finished, tested no method, or tested it on other images.
    """
    if not config.runs:
        raise InputError(
            "at least one run id is required. Received: none; scenetrack ui lists them"
        )
    folder = user_path(config.output) if config.output else None
    if folder:
        ensure_writable(folder)
    # mlflow run hands a list over as one word.
    words = [part.strip() for word in config.runs for part in word.split(",")]
    evaluations = evaluations_of(words)
    say(pairs_text(evaluations))
    if folder:
        _write(evaluations, folder)


def evaluations_of(runs: Sequence[str]) -> dict[str, Evaluation]:
    """Return the test of every method of the runs, by names that tell the methods apart.

    Raises:
        ModelError: a run is not there, is not finished, tested no method, or tested it on other
            images.
    """
    return _evaluations(_named_apart(_methods(runs)))


def _methods(words: Sequence[str]) -> list[_Method]:
    """Return the methods of the runs in the order in which they were named, each once."""
    found: dict[str, _Method] = {}
    for word in words:
        named = resolve_run(word)
        if named.status != "FINISHED":
            raise _unfinished(named)
        prefix = f"{named.name}: " if len(words) > 1 else ""
        below = list(_below(named))
        if not below:
            raise ModelError(
                f"a run with finished methods is required, but of those below run {named.id} "
                f"({named.name}) none is finished: name another one"
            )
        for run, name in below:
            found.setdefault(run.id, _Method(run, f"{prefix}{name}" if name else run.name, named))
    return list(found.values())


def _unfinished(run: RunInfo) -> ModelError:
    parts = [f"{part.id} ({part.name})" for part in _finished_below(run)]
    instead = f"or name what is finished of it: {', '.join(parts)}" if parts else "or name another"
    return ModelError(
        f"finished runs are required, but run {run.id} ({run.name}) is {run.status}: wait for it, "
        f"{instead}"
    )


def _finished_below(run: RunInfo) -> Iterator[RunInfo]:
    """Return the finished runs below one that is not, and not those below them."""
    for part in children(run.id):
        if part.status == "FINISHED":
            yield part
        else:
            yield from _finished_below(part)


def _below(run: RunInfo, path: tuple[str, ...] = ()) -> Iterator[tuple[RunInfo, str]]:
    """Return the runs of methods below a run, or itself, and their names from there on."""
    parts = children(run.id)
    for part in parts:
        if part.status == "FINISHED":
            yield from _below(part, (*path, part.name))
        else:
            logger.warning("left out: run %s (%s) is %s", part.id, part.name, part.status)
    if not parts:
        if "test/accuracy" not in run.metrics:
            raise ModelError(
                f"a run that tested a method is required, but run {run.id} ({run.name}) of "
                f"{run.stage or 'no stage'} tested none: name another one"
            )
        yield run, ": ".join(path)


def _named_apart(methods: Sequence[_Method]) -> dict[str, RunInfo]:
    """Return the methods' runs by name; where two have one, the run that was named is added."""
    names = [method.name for method in methods]
    runs: dict[str, RunInfo] = {}
    for method in methods:
        name = method.name
        if names.count(name) > 1:
            name += f" ({method.named.id[:_SHORT_ID]})"
        runs[name if name not in runs else f"{name} ({method.run.id})"] = method.run
    return runs


def _evaluations(runs: Mapping[str, RunInfo]) -> dict[str, Evaluation]:
    """Evaluate the logged predictions of each run again."""
    _check_digests(runs)
    predictions = {
        name: read_predictions(run_file(run.id, PREDICTIONS), run.classes)
        for name, run in runs.items()
    }
    first = next(iter(predictions))
    for name, found in predictions.items():
        if not _same_images(found, predictions[first]):
            raise ModelError(
                f"predictions of the same test images are required, but those of {name!r} (run "
                f"{runs[name].id}) and of {first!r} (run {runs[first].id}) name different files "
                "or classes: leave one of them out"
            )
    return {
        name: evaluate(found.labels, found.predictions, found.class_names, found.probabilities)
        for name, found in predictions.items()
    }


def _check_digests(runs: Mapping[str, RunInfo]) -> None:
    """Raise ModelError unless all were tested on one data set, with one split of it."""
    first = next(iter(runs))
    for name, run in runs.items():
        pair = (run, runs[first])
        data, other = (
            f"{run.tags.get('dataset', 'unknown')} {run.tags.get('dataset_digest', '')}".strip()
            for run in pair
        )
        digests = {run.tags.get("dataset_digest", "") for run in pair}
        # A folder may have any name; its digest says what is in it.
        if len(digests) > 1 or ("" in digests and data != other):
            raise ModelError(
                f"runs on the same data set and split are required, but {name!r} (run {run.id}) "
                f"was tested on {data}, and {first!r} (run {runs[first].id}) on {other}: compare "
                "them one data set at a time"
            )


def _same_images(first: Predictions, second: Predictions) -> bool:
    same_classes = first.class_names == second.class_names
    return (
        same_classes and first.files == second.files and bool((first.labels == second.labels).all())
    )


def _write(evaluations: Mapping[str, Evaluation], folder: Path) -> None:
    bars = [
        (name, evaluation.accuracy, evaluation.low, evaluation.high)
        for name, evaluation in evaluations.items()
    ]
    tables = {"comparison.csv": method_table(evaluations), "pairs.csv": pairs_table(evaluations)}
    for name, table in tables.items():
        _write_table(table, folder / name)
    with replacing(folder / "comparison.png") as temporary:
        temporary.write_bytes(draw_method_comparison(bars).png)
    say(f"written to {printable(folder)}: {', '.join((*tables, 'comparison.png'))}")


def _write_table(table: Table, path: Path) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = [table.columns, *table.rows]
        csv.writer(file).writerows([[guarded(cell) for cell in row] for row in rows])
