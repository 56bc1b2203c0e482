"""Worker of a study: runs trials one after the other until the study has enough."""

from __future__ import annotations

import json
import logging
import textwrap
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from scenetrack.config import TuneConfig
from scenetrack.errors import ConfigError, ScenetrackError, StoreError
from scenetrack.system.interrupts import allow_signals, defer_signals
from scenetrack.system.patience import hurried
from scenetrack.tuning.per_trial_sampler import PerTrialSampler
from scenetrack.tuning.samplers import make_sampler
from scenetrack.tuning.space import SearchSpace
from scenetrack.tuning.trial_state import (
    FAILURE,
    OWNER,
    SURPLUS,
    draws_before,
    fail_stale_trials,
    finished,
    host_of,
    is_surplus,
    own_process,
    retry,
    running,
    runs_elsewhere,
)

logger = logging.getLogger(__name__)

# Key of a trial's user attributes.
SETTINGS = "settings"
_POLL_S = 1.0
# Characters of a trial's settings in its log line; the run has all settings.
_DRAWN_SHOWN = 80
# So many failures in a row are taken for an error of the target, and end the study.
_MAX_FAILURES_IN_A_ROW = 3

# Runs a trial with these settings; returns its values, one for each objective.
RunTrial = Callable[[optuna.Trial, Mapping[str, str]], tuple[float, ...]]


class _SurplusTrial(Exception):
    """Enough trials were begun before this one."""


@dataclass
class _Attempt:
    """State of the trial that this process runs.

    Attributes:
        trial: the trial; None until it has begun.
        taken_away: whether another process took this process for dead and ended the trial.
    """

    trial: optuna.Trial | None = None
    taken_away: bool = False


@dataclass(frozen=True)
class Worker:
    """One process of a study.

    Attributes:
        study: study whose trials are run.
        config: sampler, seed and number of trials.
        space: search space.
        run: function that runs one trial.
        on_stale_trial: called with a trial whose process has died.
    """

    study: optuna.Study
    config: TuneConfig
    space: SearchSpace
    run: RunTrial
    on_stale_trial: Callable[[optuna.Study, FrozenTrial], None]

    def work(self) -> bool:
        """Run trials until the study has ``config.trials`` finished ones, or its whole grid.

        Trials of other processes on this machine are waited for, and retried if those die. Signals
        are allowed while a trial runs and while this process waits, but never inside a transaction
        of the storage.

        Returns:
            Whether the study is complete; False if other machines run the last trials.

        Raises:
            ScenetrackError: several trials in a row failed.
            StoreError: MLflow's store does not answer; the trial will be retried.
        """
        with defer_signals():
            return self._work()

    def _work(self) -> bool:
        failures: list[ScenetrackError] = []
        while True:
            fail_stale_trials(self.study, self.on_stale_trial)
            in_work, done = running(self.study), len(finished(self.study))
            if done >= self.wanted:
                return True
            if done + len(in_work) >= self.wanted:
                if all(map(runs_elsewhere, in_work)):
                    hosts = set(map(host_of, in_work))
                    logger.info("the last trials are running on %s", ", ".join(sorted(hosts)))
                    return False
                with allow_signals():
                    time.sleep(_POLL_S)
                continue
            failure = self._run_next_trial()
            failures = [*failures, failure] if failure else []
            if len(failures) >= _MAX_FAILURES_IN_A_ROW:
                raise failures[-1]

    @property
    def wanted(self) -> int:
        """Number of finished trials that the study needs."""
        if self.config.sampler != "grid":
            return self.config.trials
        return self.space.grid_size(self.config.trials)

    def _run_next_trial(self) -> ScenetrackError | None:
        """Run one more trial; return the error with which it failed, or None."""
        self.study.sampler = PerTrialSampler(
            lambda number: make_sampler(
                self.config.sampler, self.config.seed, draws_before(self.study, number), self.space
            )
        )
        attempt = _Attempt()
        try:
            self._optimize(attempt)
        except _SurplusTrial:
            return None
        except (KeyboardInterrupt, StoreError):
            if attempt.trial:
                # What cannot be written is done by the next process, which finds this one dead.
                with hurried(), suppress(StoreError):
                    retry(self.study, self._frozen(attempt.trial))
            raise
        except Exception as error:
            if attempt.trial and attempt.taken_away:
                outcome = "was taken for dead by another process: its result does not count"
                logger.warning("trial %d %s", attempt.trial.number, outcome)
                return None
            if not attempt.trial or not isinstance(error, ScenetrackError):
                raise
            logger.warning("trial %d failed: %s", attempt.trial.number, error)
            return error
        if attempt.trial:
            self._log_result(self._frozen(attempt.trial))
        return None

    def _optimize(self, attempt: _Attempt) -> None:
        try:
            self.study.optimize(lambda trial: self._objective(trial, attempt), n_trials=1)
        except UnboundLocalError as error:
            # Optuna hides the error with which writing the end of a trial fails behind this one.
            first = error.__context__
            if first is None:
                raise
            raise first from first.__cause__

    def _objective(self, trial: optuna.Trial, attempt: _Attempt) -> tuple[float, ...]:
        trial.set_user_attr(OWNER, own_process())
        if is_surplus(self.study, trial.number, self.wanted):
            trial.set_user_attr(SURPLUS, True)
            raise _SurplusTrial
        attempt.trial = trial
        settings = self.space.draw(trial)
        trial.set_user_attr(SETTINGS, json.dumps(settings))
        try:
            with allow_signals():
                values = self.run(trial, settings)
            attempt.taken_away = self._frozen(trial).state != TrialState.RUNNING
            return values
        except UpdateFinishedTrialError:
            attempt.taken_away = True
            raise
        except ConfigError as error:
            # Values that are valid one by one may contradict each other.
            trial.set_user_attr(FAILURE, str(error))
            raise optuna.TrialPruned(str(error)) from error
        except ScenetrackError as error:
            trial.set_user_attr(FAILURE, str(error))
            raise

    def _frozen(self, trial: optuna.Trial) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[trial.number]

    def _log_result(self, trial: FrozenTrial) -> None:
        done = len(finished(self.study))
        if trial.state != TrialState.PRUNED:
            outcome = values_text(trial)
        else:
            reason = trial.user_attrs.get(FAILURE)
            outcome = f"has impossible settings: {reason}" if reason else "stopped early"
        drawn = ", ".join(
            f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in trial.params.items()
        )
        drawn = textwrap.shorten(drawn, _DRAWN_SHOWN, placeholder=" ...")
        logger.info("%d of %d: trial %d %s (%s)", done, self.wanted, trial.number, outcome, drawn)


def values_text(trial: FrozenTrial) -> str:
    """Return a trial's accuracy in percent and its other objective values, as text."""
    accuracy, *others = trial.values
    return ", ".join([f"{accuracy:.1%}", *(f"{value:.4g}" for value in others)])
