"""A process that works on a study until it has its trials."""

from __future__ import annotations

import json
import logging
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

from scenetrack.config import TuneConfig
from scenetrack.errors import ConfigError, ScenetrackError, StoreError
from scenetrack.tuning.by_number import SamplerOfTrial
from scenetrack.tuning.samplers import make_sampler
from scenetrack.tuning.space import SearchSpace
from scenetrack.tuning.trials import (
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

# Keys of a trial's user attributes.
SETTINGS, FAILURE = "settings", "failure"
_POLL_S = 1.0
# Characters of a trial's settings in its line; its run has all of them.
_DRAWN_SHOWN = 80
# Failures one after the other that are taken for the fault of what is tuned.
_MOST_FAILURES = 3

# Runs a trial with these settings: its values, one for each objective.
RunTrial = Callable[[optuna.Trial, Mapping[str, str]], tuple[float, ...]]


class _Surplus(Exception):
    """There were trials enough before this one."""


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

    def work(self) -> None:
        """Run trials until the study has ``config.trials`` finished ones, or a grid its own.

        Trials of other processes on this machine are waited for, and taken up where those die.

        Raises:
            ScenetrackError: trials fail one after the other.
            StoreError: MLflow's store does not answer; the trial will be tried again.
        """
        failures: list[ScenetrackError] = []
        while True:
            end_stale(self.study, self.lost)
            in_work, done = running(self.study), len(finished(self.study))
            if done >= self.wanted:
                return
            if done + len(in_work) >= self.wanted:
                if all(map(is_elsewhere, in_work)):
                    hosts = set(map(host_of, in_work))
                    logger.info("the last trials are in work on %s", ", ".join(sorted(hosts)))
                    return
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
        self.study.sampler = SamplerOfTrial(
            lambda number: make_sampler(
                self.config.sampler, self.config.seed, rank(self.study, number), self.space
            )
        )
        begun: list[optuna.Trial] = []
        try:
            self._optimize(begun)
        except _Surplus:
            return None
        except (KeyboardInterrupt, StoreError):
            if begun:
                retry(self.study, self._frozen(begun[0]))
            raise
        except ScenetrackError as error:
            logger.warning("trial %d failed: %s", begun[0].number, error)
            return error
        if begun:
            self._tell(self._frozen(begun[0]))
        return None

    def _optimize(self, begun: list[optuna.Trial]) -> None:
        try:
            self.study.optimize(lambda trial: self._objective(trial, begun), n_trials=1)
        except UnboundLocalError as error:
            # Optuna stumbles over an interrupt that comes while it writes a trial's end.
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None
            raise

    def _objective(self, trial: optuna.Trial, begun: list[optuna.Trial]) -> tuple[float, ...]:
        trial.set_user_attr(OWNER, owner())
        if is_surplus(self.study, trial.number, self.wanted):
            trial.set_user_attr(SURPLUS, True)
            raise _Surplus
        begun.append(trial)
        settings = self.space.draw(trial)
        trial.set_user_attr(SETTINGS, json.dumps(settings))
        try:
            return self.run(trial, settings)
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
