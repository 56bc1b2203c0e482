"""Tracker of one trial: logs metrics, params and tags, and reports the curve to the pruner."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna

from scenetrack.records import Artifact, Figure, Metric, Model, Param, Record, Tag, Tracker
from scenetrack.system.interrupts import defer_signals
from scenetrack.tuning.trial_state import SAVED_S

# Name, after any prefix, of the curve that the pruner judges.
_CURVE, _LOSS, _EPOCHS = "val/accuracy", "train/loss", "epochs"
# Seconds after which the collected steps of curves are logged together.
_FLUSH_AFTER_S = 5.0
# Reports of one curve to the pruner at most: each costs a database milliseconds.
_MOST_REPORTS = 20
_LOGGED = (Metric, Param, Tag)


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
        metrics: last value of each metric.
        tags: value of each tag.
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

    def log(self, *records: Record) -> None:
        """Log metrics, params, tags and the figure of the learning curves; drop other records.

        Raises:
            optuna.TrialPruned: the pruner stops the training.
        """
        kept = [record for record in records if isinstance(record, _LOGGED) or _is_curve(record)]
        self.metrics |= {record.name: record.value for record in kept if isinstance(record, Metric)}
        self.tags |= {record.name: record.value for record in kept if isinstance(record, Tag)}
        self.copy_files(records)
        if not self._pending:
            self._pending_since = time.monotonic()
        self._pending += kept
        of_epochs = [record for record in kept if isinstance(record, Metric) and record.step]
        if len(of_epochs) < len(kept) or time.monotonic() - self._pending_since > _FLUSH_AFTER_S:
            self.flush()
        metrics = [record for record in kept if isinstance(record, Metric)]
        names = {record.name for record in metrics}
        if _EPOCHS in names:
            # The training has ended, and logs the metrics of the epoch that it kept again.
            return
        for metric in metrics:
            # An epoch also logs the training loss; the accuracy of a finished method is no curve.
            loss = metric.name.removesuffix(_CURVE) + _LOSS
            if metric.name.endswith(_CURVE) and loss in names:
                self._report(metric)

    def copy_files(self, records: Sequence[Record], method: str = "") -> None:
        """Copy the files of models and artifacts, which the stage deletes after logging."""
        files = [record.path for record in records if isinstance(record, Artifact | Model)]
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
        yield _MethodTracker(self, name)

    def _report(self, record: Metric) -> None:
        if self._trial is None or record.step >= self._epochs:
            return
        if (record.step + 1) % math.ceil(self._epochs / _MOST_REPORTS):
            return
        with defer_signals():
            self._trial.report(record.value, record.step)
            if record.step + 1 == self._epochs or not self._trial.should_prune():
                return
            spent = time.monotonic() - self._begun
            saved = spent * (self._epochs / (record.step + 1) - 1)
            self._trial.set_user_attr(SAVED_S, round(saved, 2))
        self.flush()
        self._run.log(Metric("time/saved_s", saved))
        raise optuna.TrialPruned(f"after {record.step + 1} of {self._epochs} epochs")


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
                Metric(f"{record.name}/{self._name}", record.value, record.step)
                for record in records
                if isinstance(record, Metric)
            )
        )

    @contextmanager
    def child(self, name: str, tags: Mapping[str, str] | None = None) -> Iterator[_MethodTracker]:
        """Yield the tracker of a method of this method."""
        yield _MethodTracker(self._tracker, f"{self._name}/{name}")


def _is_curve(record: Record) -> bool:
    return isinstance(record, Figure) and record.name == "figures/learning_curves.png"
