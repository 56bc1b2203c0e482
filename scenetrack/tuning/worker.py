"""A process that works on a study until it has its trials."""

from __future__ import annotations

import json
import logging
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from scenetrack.config import TuneConfig
from scenetrack.errors import ConfigError, ScenetrackError, StoreError
from scenetrack.system.interrupts import allow_signals, defer_signals
from scenetrack.tuning.per_trial_sampler import PerTrialSampler
from scenetrack.tuning.samplers import make_sampler
from scenetrack.tuning.space import SearchSpace
from scenetrack.tuning.trial_state import (
    FAILURE,
    OWNER,
    SURPLUS,
    end_stale,
    finished,
    host_of,
    is_elsewhere,
    is_surplus,
    owner,
    rank,
    retry,
    running,
)

logger = logging.getLogger(__name__)

# Key of a trial's user attributes.
SETTINGS = "settings"
_POLL_S = 1.0
# Characters of a trial's settings in its line; its run has all of them.
_DRAWN_SHOWN = 80
# Failures one after the other that are taken for the fault of what is tuned.
_MOST_FAILURES = 3

# Runs a trial with these settings: its values, one for each objective.
RunTrial = Callable[[optuna.Trial, Mapping[str, str]], tuple[float, ...]]


class _Surplus(Exception):
    """There were trials enough before this one."""


@dataclass
class _Attempt:
    """What became of the trial that is being run.

    Attributes:
        trial: None until one is begun.
        taken_away: whether another process took its own for dead, and ended it.
    """

    trial: optuna.Trial | None = None
    taken_away: bool = False


@dataclass(frozen=True)
class Worker:
    """One process of a study.

    Attributes:
        study: whose trials.
        config: sampler, seed and number of trials.
        space: what is drawn from.
        run: runs a trial.
        lost: told of a trial whose process was found dead.
    """

    study: optuna.Study
    config: TuneConfig
    space: SearchSpace
    run: RunTrial
    lost: Callable[[optuna.Study, FrozenTrial], None]

    def work(self) -> bool:
        """Run trials until the study has ``config.trials`` finished ones, or a grid its own.

        Trials of other processes on this machine are waited for, and taken up where those die.
        Signals are heard while a trial runs, and while others are waited for: the storage is never
        left in the midst of a transaction.

        Returns:
            Whether it has them; false where the last ones are in work on other machines.

        Raises:
            ScenetrackError: trials fail one after the other.
            StoreError: MLflow's store does not answer; the trial will be tried again.
        """
        with defer_signals():
            return self._work()

    def _work(self) -> bool:
        failures: list[ScenetrackError] = []
        while True:
            end_stale(self.study, self.lost)
            in_work, done = running(self.study), len(finished(self.study))
            if done >= self.wanted:
                return True
            if done + len(in_work) >= self.wanted:
                if all(map(is_elsewhere, in_work)):
                    hosts = set(map(host_of, in_work))
                    logger.info("the last trials are in work on %s", ", ".join(sorted(hosts)))
                    return False
                with allow_signals():
                    time.sleep(_POLL_S)
                continue
            failure = self._next()
            failures = [*failures, failure] if failure else []
            if len(failures) >= _MOST_FAILURES:
                raise failures[-1]

    @property
    def wanted(self) -> int:
        """Finished trials in all."""
        if self.config.sampler != "grid":
            return self.config.trials
        return self.space.grid_size(self.config.trials)

    def _next(self) -> ScenetrackError | None:
        """Run one more trial; what it failed of."""
        self.study.sampler = PerTrialSampler(
            lambda number: make_sampler(
                self.config.sampler, self.config.seed, rank(self.study, number), self.space
            )
        )
        attempt = _Attempt()
        try:
            self._optimize(attempt)
        except _Surplus:
            return None
        except (KeyboardInterrupt, StoreError):
            if attempt.trial:
                retry(self.study, self._frozen(attempt.trial))
            raise
        except Exception as error:
            if attempt.trial and attempt.taken_away:
                said = "was taken for dead by another process: what it found does not count"
                logger.warning("trial %d %s", attempt.trial.number, said)
                return None
            if not attempt.trial or not isinstance(error, ScenetrackError):
                raise
            logger.warning("trial %d failed: %s", attempt.trial.number, error)
            return error
        if attempt.trial:
            self._tell(self._frozen(attempt.trial))
        return None

    def _optimize(self, attempt: _Attempt) -> None:
        try:
            self.study.optimize(lambda trial: self._objective(trial, attempt), n_trials=1)
        except UnboundLocalError as error:
            # Optuna stumbles over what keeps it from writing a trial's end.
            first = error.__context__
            if first is None:
                raise
            raise first from first.__cause__

    def _objective(self, trial: optuna.Trial, attempt: _Attempt) -> tuple[float, ...]:
        trial.set_user_attr(OWNER, owner())
        if is_surplus(self.study, trial.number, self.wanted):
            trial.set_user_attr(SURPLUS, True)
            raise _Surplus
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
            # Ranges that are each possible may not be so together.
            trial.set_user_attr(FAILURE, str(error))
            raise optuna.TrialPruned(str(error)) from error
        except ScenetrackError as error:
            trial.set_user_attr(FAILURE, str(error))
            raise

    def _frozen(self, trial: optuna.Trial) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[trial.number]

    def _tell(self, trial: FrozenTrial) -> None:
        done = len(finished(self.study))
        if trial.state != TrialState.PRUNED:
            said = values_text(trial)
        else:
            reason = trial.user_attrs.get(FAILURE)
            said = f"was impossible: {reason}" if reason else "stopped early"
        drawn = ", ".join(
            f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in trial.params.items()
        )
        drawn = textwrap.shorten(drawn, _DRAWN_SHOWN, placeholder=" ...")
        logger.info("%d of %d: trial %d %s (%s)", done, self.wanted, trial.number, said, drawn)


def values_text(trial: FrozenTrial) -> str:
    """A trial's accuracy in percent, and its other values."""
    accuracy, *others = trial.values
    return ", ".join([f"{accuracy:.1%}", *(f"{value:.4g}" for value in others)])
