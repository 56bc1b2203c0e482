"""One trial: its settings run as the target does, watched by the pruner, its figures kept."""

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
from scenetrack.system.interrupts import held
from scenetrack.tuning.trial_state import SAVED_S

# The curve that tells a bad training, whatever stands before it.
_CURVE = "val/accuracy"
# Steps of curves are logged together, at most so long after the first of them.
_TOGETHER_S = 5.0
# Of a curve as the pruner sees it: each one costs a database milliseconds.
_MOST_REPORTS = 20
_LOGGED = (Metric, Epoch, Param, Tag)


class TrialTracker:
    """Logs what a trial needs to its run, and tells the pruner of its validation curve.

    A study keeps no models and pictures of its trials, which can be had again from their settings:
    only the refitted one has them. Methods of the stage, its child runs elsewhere, become metrics
    ``NAME/METHOD`` of the one run.

    Args:
        run: of the trial.
        trial: is told of the curve; None where nothing prunes.
        epochs: of the training, to tell what an early stop saves.
        parts: folder to copy models and learnt parts to, those of a method into one of its name;
            None where nobody asks for them.

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
        self._waiting: list[Record] = []
        self._waiting_since = time.monotonic()
        self._begun = time.monotonic()
        self.metrics: dict[str, float] = {}
        self.tags: dict[str, str] = {}
        self.kernels: dict[str, str] = {}

    def log(self, *records: Record) -> None:
        """Log metrics, params, tags and the learning curves; other records are let go.

        Raises:
            optuna.TrialPruned: the validation curve is a bad one.
        """
        kept = [r for r in records if isinstance(r, _LOGGED) or _is_curve(r)]
        self.metrics |= {metric.name: metric.value for metric in metrics_among(kept)}
        self.tags |= {r.name: r.value for r in kept if isinstance(r, Tag)}
        self.keep(records)
        if not self._waiting:
            self._waiting_since = time.monotonic()
        self._waiting += kept
        later = [r for r in kept if isinstance(r, Epoch) and r.number]
        if len(later) < len(kept) or time.monotonic() - self._waiting_since > _TOGETHER_S:
            self.flush()
        for record in kept:
            if isinstance(record, Epoch) and _CURVE in record.values:
                self._report(record.values[_CURVE], record.number)

    def keep(self, records: Sequence[Record], method: str = "") -> None:
        """Copy the files of models and artifacts, which go when the stage has logged them."""
        files = [r.path for r in records if isinstance(r, Artifact | Model)]
        if self.parts is None or not files:
            return
        folder = self.parts / method
        folder.mkdir(exist_ok=True)
        for path in files:
            shutil.copyfile(path, folder / path.name)

    def flush(self) -> None:
        """Log what was kept back."""
        if self._waiting:
            self._run.log(*self._waiting)
            self._waiting = []

    @contextmanager
    def child(self, name: str, tags: Mapping[str, str] | None = None) -> Iterator[_MethodTracker]:
        """A method of the stage."""
        self.kernels[name] = (tags or {}).get("kernel", "")
        yield _MethodTracker(self, name)

    def _report(self, accuracy: float, epoch: int) -> None:
        if self._trial is None or (epoch + 1) % math.ceil(self._epochs / _MOST_REPORTS):
            return
        with held():
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
    """A finished method of a trial, in the trial's own run."""

    def __init__(self, tracker: TrialTracker, name: str) -> None:
        self.run_id = tracker.run_id
        self._tracker, self._name = tracker, name

    def log(self, *records: Record) -> None:
        """Log the method's metrics under its name."""
        self._tracker.keep(records, self._name)
        self._tracker.log(
            *(
                Metric(f"{metric.name}/{self._name}", metric.value, metric.step)
                for metric in metrics_among(records)
            )
        )

    @contextmanager
    def child(self, name: str, tags: Mapping[str, str] | None = None) -> Iterator[_MethodTracker]:
        """A method of a method."""
        yield _MethodTracker(self._tracker, f"{self._name}/{name}")


def _is_curve(record: Record) -> bool:
    return isinstance(record, Figure) and record.name == "figures/learning_curves.png"
