"""Tracker of one trial: logs metrics, params and tags, and reports the curve to the pruner."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna

from scenetrack.records import (
    Artifact,
    Epoch,
    Figure,
    Metric,
    Model,
    Param,
    Record,
    Tag,
    Tracker,
    metrics_among,
)
from scenetrack.system.interrupts import defer_signals
from scenetrack.tuning.trial_state import SAVED_S

# Name of the curve that the pruner judges.
_CURVE = "val/accuracy"
# Seconds after which the collected epochs are logged together.
_TOGETHER_S = 5.0
# Reports of a curve to the pruner: each one costs a database milliseconds.
_MOST_REPORTS = 20
_LOGGED = (Metric, Epoch, Param, Tag)


class TrialTracker:
    """Log a trial to its run, and report its validation curve to the pruner.

    A study keeps no models and pictures of its trials, which can be computed again from their
    settings: only the refit has them. The methods of the stage, child runs elsewhere, become
    metrics ``NAME/METHOD`` of the trial's run.

    Args:
        run: tracker of the trial's run.
        trial: Optuna trial that gets the curve; None without a pruner.
        epochs: epochs of the training, to compute the time that an early stop saves.
        parts: folder to copy models and learnt parts to, those of a method into a subfolder with
            its name; None if they are not needed.

    Attributes:
        metrics: the last value of each.
        tags: all of them.
        kernels: the SVM kernel of each finished method; empty for a network.
    """

    def __init__(
        self, run: Tracker, trial: optuna.Trial | None, epochs: int, parts: Path | None = None
    ) -> None:
        self.run_id = run.run_id
        self.parts = parts
        self._run, self._trial, self._epochs = run, trial, epochs
        self._pending: list[Record] = []
        self._pending_since = time.monotonic()
        self._begun = time.monotonic()
        self.metrics: dict[str, float] = {}
        self.tags: dict[str, str] = {}
        self.kernels: dict[str, str] = {}

    def log(self, *records: Record) -> None:
        """Log metrics, params, tags and the figure of the learning curves; drop other records.

        Raises:
            optuna.TrialPruned: the pruner stops the training.
        """
        kept = [r for r in records if isinstance(r, _LOGGED) or _is_curve(r)]
        self.metrics |= {metric.name: metric.value for metric in metrics_among(kept)}
        self.tags |= {r.name: r.value for r in kept if isinstance(r, Tag)}
        self.copy_files(records)
        if not self._pending:
            self._pending_since = time.monotonic()
        self._pending += kept
        later = [r for r in kept if isinstance(r, Epoch) and r.number]
        if len(later) < len(kept) or time.monotonic() - self._pending_since > _TOGETHER_S:
            self.flush()
        for record in kept:
            if isinstance(record, Epoch) and _CURVE in record.values:
                self._report(record.values[_CURVE], record.number)

    def copy_files(self, records: Sequence[Record], method: str = "") -> None:
        """Copy the files of models and artifacts, which go when the stage has logged them."""
        files = [r.path for r in records if isinstance(r, Artifact | Model)]
        if self.parts is None or not files:
            return
        folder = self.parts / method
        folder.mkdir(exist_ok=True)
        for path in files:
            shutil.copyfile(path, folder / path.name)

    def flush(self) -> None:
        """Log the collected records."""
        if self._pending:
            self._run.log(*self._pending)
            self._pending = []

    @contextmanager
    def child(self, name: str, tags: Mapping[str, str] | None = None) -> Iterator[_MethodTracker]:
        """Yield the tracker of a method of the stage."""
        self.kernels[name] = (tags or {}).get("kernel", "")
        yield _MethodTracker(self, name)

    def _report(self, accuracy: float, epoch: int) -> None:
        if self._trial is None or (epoch + 1) % math.ceil(self._epochs / _MOST_REPORTS):
            return
        with defer_signals():
            self._trial.report(accuracy, epoch)
            if epoch + 1 == self._epochs or not self._trial.should_prune():
                return
            spent = time.monotonic() - self._begun
            saved = spent * (self._epochs / (epoch + 1) - 1)
            self._trial.set_user_attr(SAVED_S, round(saved, 2))
        self.flush()
        self._run.log(Metric("time/saved_s", saved))
        raise optuna.TrialPruned(f"after {epoch + 1} of {self._epochs} epochs")


class _MethodTracker:
    """Log a finished method of a trial to the trial's own run."""

    def __init__(self, tracker: TrialTracker, name: str) -> None:
        self.run_id = tracker.run_id
        self._tracker, self._name = tracker, name

    def log(self, *records: Record) -> None:
        """Log the method's metrics as ``METRIC/METHOD``, and copy its files."""
        self._tracker.copy_files(records, self._name)
        self._tracker.log(
            *(
                Metric(f"{metric.name}/{self._name}", metric.value, metric.step)
                for metric in metrics_among(records)
            )
        )

    @contextmanager
    def child(self, name: str, tags: Mapping[str, str] | None = None) -> Iterator[_MethodTracker]:
        """Yield the tracker of a method of this method."""
        yield _MethodTracker(self._tracker, f"{self._name}/{name}")


def _is_curve(record: Record) -> bool:
    return isinstance(record, Figure) and record.name == "figures/learning_curves.png"
