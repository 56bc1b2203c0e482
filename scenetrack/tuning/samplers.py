"""Samplers (TPE, random, grid, CMA-ES) and pruners (median, Hyperband) of a study."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from scenetrack.tuning.cmaes import CmaEsSampler
from scenetrack.tuning.space import SearchSpace

# Trials that are drawn at random before the sampler uses results of earlier trials.
STARTUP_TRIALS = 10


def make_sampler(kind: str, seed: int, place: int, space: SearchSpace) -> BaseSampler:
    """Return the sampler of one trial.

    The settings that it draws depend on the seed, the place and the earlier trials: so a killed
    study continues as if it had not been killed, and processes that share a study draw different
    settings.

    Args:
        kind: one of ``config.SAMPLERS``.
        seed: seed of the study.
        place: number of trials, without retries, that were begun before this one.
        space: search space of the study.
    """
    own = int(np.random.SeedSequence([seed, place]).generate_state(1)[0])
    if kind == "random":
        return RandomSampler(seed=own)
    if kind == "grid":
        return ConditionalGridSampler(space, place)
    if kind == "cmaes":
        return CmaEsSampler(own)
    return TPESampler(n_startup_trials=STARTUP_TRIALS, seed=own)


def make_pruner(kind: str, epochs: int) -> optuna.pruners.BasePruner:
    """Return the pruner ``kind``, one of ``config.PRUNERS``.

    The median pruner begins after a third of the ``epochs`` and after 10 complete trainings:
    a training that learns slowly because of augmentation or dropout often ends with the best
    accuracy. On the real split, a pruner that began after 5 epochs and 5 trainings stopped 38 of
    50 trials.
    """
    if kind == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=max(1, epochs // 9))
    if kind == "median":
        return optuna.pruners.MedianPruner(
            n_startup_trials=STARTUP_TRIALS, n_warmup_steps=max(1, epochs // 3)
        )
    return optuna.pruners.NopPruner()


class ConditionalGridSampler(BaseSampler):
    """Sample one combination of ``SearchSpace.grid``.

    Optuna's own grid sampler has no conditional dimensions: it would try combinations that differ
    only in a setting that is not used.

    Args:
        space: search space of the study.
        place: index of the combination, modulo the size of the grid.
    """

    def __init__(self, space: SearchSpace, place: int) -> None:
        place %= space.grid_size(place + 1)
        self._values = next(islice(space.grid(), place, None))

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._values[param_name]
