"""Optuna sampler that delegates each trial to a sampler made from the trial's number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial


class PerTrialSampler(BaseSampler):
    """Sample each trial with a sampler that is made from the trial's number.

    Only the storage knows the number of the next trial: if two processes began a trial at the same
    time and counted the trials before it, both would draw the same settings.

    Args:
        make_sampler: returns the sampler for a trial number.
    """

    def __init__(self, make_sampler: Callable[[int], BaseSampler]) -> None:
        self._make_sampler = make_sampler
        self._samplers: dict[int, BaseSampler] = {}

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._sampler_for(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler_for(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._sampler_for(trial).sample_independent(
            study, trial, param_name, param_distribution
        )

    def _sampler_for(self, trial: FrozenTrial) -> BaseSampler:
        if trial.number not in self._samplers:
            self._samplers = {trial.number: self._make_sampler(trial.number)}
        return self._samplers[trial.number]
