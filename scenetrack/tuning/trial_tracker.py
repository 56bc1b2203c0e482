"""One trial: its settings run as the target does, watched by the pruner, its figures kept."""

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

# The curve that tells a bad training, whatever stands before it.
_CURVE, _LOSS, _EPOCHS = "val/accuracy", "train/loss", "epochs"
# Steps of curves are logged together, at most so long after the first of them.
_TOGETHER_S = 5.0
# Of a curve as the pruner sees it: each one costs a database milliseconds.
_MOST_REPORTS = 20
_LOGGED = (Metric, Param, Tag)


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

    def log(self, *records: Record) -> None:
        """Log metrics, params, tags and the learning curves; other records are let go.

        Raises:
            optuna.TrialPruned: the validation curve is a bad one.
        """
        kept = [one for one in records if isinstance(one, _LOGGED) or _is_curve(one)]
        self.metrics |= {one.name: one.value for one in kept if isinstance(one, Metric)}
        self.tags |= {one.name: one.value for one in kept if isinstance(one, Tag)}
        self.keep(records)
        if not self._waiting:
            self._waiting_since = time.monotonic()
        self._waiting += kept
        of_step = [one for one in kept if isinstance(one, Metric) and one.step]
        if len(of_step) < len(kept) or time.monotonic() - self._waiting_since > _TOGETHER_S:
            self.flush()
        told = [one for one in kept if isinstance(one, Metric)]
        names = {one.name for one in told}
        if _EPOCHS in names:
            # The training has ended, and tells the figures of the epoch that it kept once more.
            return
        for metric in told:
            # An epoch tells the training's loss too; a finished method's accuracy is no curve.
            loss = metric.name.removesuffix(_CURVE) + _LOSS
            if metric.name.endswith(_CURVE) and loss in names:
                self._report(metric)

    def keep(self, records: Sequence[Record], method: str = "") -> None:
        """Copy the files of models and artifacts, which go when the stage has logged them."""
        files = [one.path for one in records if isinstance(one, Artifact | Model)]
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
    """A finished method of a trial, in the trial's own run."""

    def __init__(self, tracker: TrialTracker, name: str) -> None:
        self.run_id = tracker.run_id
        self._tracker, self._name = tracker, name

    def log(self, *records: Record) -> None:
        """Log the method's metrics under its name."""
        self._tracker.keep(records, self._name)
        self._tracker.log(
            *(
                Metric(f"{one.name}/{self._name}", one.value, one.step)
                for one in records
                if isinstance(one, Metric)
            )
        )

    @contextmanager
    def child(self, name: str, tags: Mapping[str, str] | None = None) -> Iterator[_MethodTracker]:
        """A method of a method."""
        yield _MethodTracker(self._tracker, f"{self._name}/{name}")


def _is_curve(record: Record) -> bool:
    return isinstance(record, Figure) and record.name == "figures/learning_curves.png"
