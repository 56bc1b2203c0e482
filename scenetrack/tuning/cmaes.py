"""CMA-ES sampler for Optuna, without the pickles that Optuna's own keeps in the storage."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
from cmaes import CMA
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

_NUMERIC = (FloatDistribution, IntDistribution)


class CmaEsSampler(BaseSampler):
    """Sample numbers by CMA-ES: Hansen, "The CMA evolution strategy: a tutorial", 2016.

    The state of the strategy is computed from the finished trials, generation by generation, for
    each draw: no object is kept in the storage, where reading it back could execute code.
    Categorical settings, and numbers that not every trial has, are drawn at random.

    Args:
        seed: seed of this one draw.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._random = RandomSampler(seed=seed)
        self._shared = IntersectionSearchSpace()

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        shared = self._shared.calculate(study)
        return {
            name: kind
            for name, kind in shared.items()
            if isinstance(kind, _NUMERIC) and not kind.single()
        }

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if len(search_space) < 2:  # the algorithm has no covariance to adapt in one dimension
            return {}
        names = list(search_space)
        strategy = CMA(
            mean=np.full(len(names), 0.5),
            sigma=1 / 6,
            bounds=np.tile([0.0, 1.0], (len(names), 1)),
            seed=self._seed,
        )
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        known = [
            (
                np.array([_to_unit(search_space[n], trial.params[n]) for n in names]),
                sign * trial.value,
            )
            for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if trial.value is not None and all(n in trial.params for n in names)
        ]
        size = strategy.population_size
        for start in range(0, len(known) - size + 1, size):
            strategy.tell(known[start : start + size])
        drawn = strategy.ask()
        return {n: _from_unit(search_space[n], x) for n, x in zip(names, drawn, strict=True)}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._random.sample_independent(study, trial, param_name, param_distribution)


def _to_unit(kind: Any, value: float) -> float:
    """Return the position of ``value`` in its range, in [0, 1]."""
    low, high = _transformed_bounds(kind)
    inner = np.log(value) if kind.log else value
    return float((inner - low) / (high - low))


def _from_unit(kind: Any, share: float) -> float:
    """Return the value of the range at the position ``share``, in [0, 1]."""
    low, high = _transformed_bounds(kind)
    inner = low + float(np.clip(share, 0, 1)) * (high - low)
    value = float(np.exp(inner)) if kind.log else inner
    if kind.step:
        value = kind.low + round((value - kind.low) / kind.step) * kind.step
    value = float(min(max(value, kind.low), kind.high))
    return round(value) if isinstance(kind, IntDistribution) else value


def _transformed_bounds(kind: Any) -> tuple[float, float]:
    if kind.log:
        return float(np.log(kind.low)), float(np.log(kind.high))
    return float(kind.low), float(kind.high)
