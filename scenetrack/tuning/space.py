"""Search space of a study: the target's default space, changed by ``--space`` and ``--fixed``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np

from scenetrack.config import TARGETS, EvaluatedConfig
from scenetrack.config.dimensions import Dimension
from scenetrack.config.parsing import build_config
from scenetrack.errors import ConfigError
from scenetrack.tuning.ranges import changed_dimension, check_setting, parsed_ranges, text_of

# Number of grid values of a numeric dimension without a step.
_GRID_POINTS = 3
# Random draws after which a value that was valid in none of them is taken as impossible.
_PROBES = 64


class Suggester(Protocol):
    """The ``suggest_*`` methods of ``optuna.Trial``."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """Return an integer."""
        ...

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float:
        """Return a number."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> Any:
        """Return one of the choices."""
        ...


@dataclass(frozen=True)
class SearchSpace:
    """Search space: the dimensions that a trial draws, and the fixed settings.

    Attributes:
        target: config class of the entry point.
        dimensions: drawn dimensions, each after the dimensions that it depends on.
        fixed: fixed settings, as texts of the command line.
    """

    target: type[EvaluatedConfig]
    dimensions: tuple[Dimension, ...]
    fixed: Mapping[str, str]

    def draw(self, trial: Suggester) -> dict[str, str]:
        """Draw the settings of a trial, with the fixed ones, as texts of the command line."""
        return self._settings(lambda dimension: _drawn(dimension, trial))

    def grid(self) -> Iterator[dict[str, Any]]:
        """Yield the combinations of the grid: the values of the drawn dimensions by name.

        There may be millions of combinations; the last dimension changes fastest.
        """
        return self._combinations({}, self.dimensions)

    def grid_size(self, most: int) -> int:
        """Return the number of combinations of the grid, at most ``most``."""
        return sum(1 for _ in islice(self.grid(), most))

    def table(self) -> list[tuple[str, str, str, str]]:
        """Return rows of dimension, values, the setting that it sets, and its condition.

        A study keeps these rows: other words here would make it another study.
        """
        return [
            (
                dimension.name,
                dimension.values,
                dimension.setting or "(decides others)",
                " and ".join(
                    f"{key} is {' or '.join(values)}" for key, values in dimension.when.items()
                ),
            )
            for dimension in self.dimensions
        ]

    def _settings(self, draw: Callable[[Dimension], Any]) -> dict[str, str]:
        known: dict[str, Any] = {}
        parts: dict[str, list[str]] = {}
        for dimension in self.dimensions:
            if not self._applies(dimension, known):
                continue
            value = known[dimension.name] = draw(dimension)
            if dimension.setting:
                parts.setdefault(dimension.setting, []).append(text_of(value))
        return {**self.fixed, **{name: ",".join(words) for name, words in parts.items()}}

    def _combinations(
        self, known: Mapping[str, Any], left: Sequence[Dimension]
    ) -> Iterator[dict[str, Any]]:
        if not left:
            yield dict(known)
        elif not self._applies(left[0], known):
            yield from self._combinations(known, left[1:])
        else:
            for value in grid_values(left[0]):
                yield from self._combinations({**known, left[0].name: value}, left[1:])

    def _applies(self, dimension: Dimension, known: Mapping[str, Any]) -> bool:
        """Return whether the values drawn so far, or fixed, meet the condition of ``dimension``."""
        return all(
            text_of(known.get(name, self.fixed.get(name, ""))) in allowed
            for name, allowed in dimension.when.items()
        )


def search_space(
    target: type[EvaluatedConfig], given: str = "", fixed: Mapping[str, str] | None = None
) -> SearchSpace:
    """Return the search space of ``target`` as ``--space`` and the fixed settings change it.

    Choices of the default space that contradict the fixed settings are left out. A fixed setting
    that is valid only with some of the drawn values is left out of the other trials.

    Args:
        target: config of one of ``config.TARGETS``.
        given: ``NAME=VALUES; ...``, or the path of a TOML file with such pairs, see
            ``ranges.parsed_ranges``.
        fixed: fixed settings; the dimensions that would set them are removed.

    Raises:
        ConfigError: unknown name, a value that no trial can have, or an empty search space.
    """
    fixed = dict(fixed or {})
    for name, text in fixed.items():
        check_setting(target, name, text)
    own = {dimension.name: dimension for dimension in TARGETS[target.stage].space}
    ranges = parsed_ranges(given)
    # Parts of a list setting first: a list that is given as a whole removes its parts.
    for name, values in sorted(ranges.items(), key=lambda item: item[0] not in own):
        dimension = changed_dimension(target, own.get(name), name, values)
        setting = dimension.setting
        if setting in fixed:
            raise ConfigError(
                f"{setting} is fixed at {fixed[setting]}, but the space gives {name}: leave one out"
            )
        if name not in own:  # a list as a whole, not its parts
            own = {key: part for key, part in own.items() if part.setting != name}
        own[name] = dimension
    singles = {n: item.choices[0] for n, item in own.items() if n in ranges and _is_single(item)}
    space = _without_unused(SearchSpace(target, tuple(own.values()), {**fixed, **singles}))
    if not space.dimensions:
        raise ConfigError("at least one setting to search is required, but every setting is fixed")
    for name in ranges:
        _check_used(space, name)
    return _without_impossible_choices(space, set(ranges))


def grid_values(dimension: Dimension) -> list[Any]:
    """Return the grid values of a dimension: all choices, all steps, or a few even points."""
    if dimension.kind is str:
        return list(dimension.choices)
    low, high = dimension.low, dimension.high
    if dimension.step:
        count = int((high - low) / dimension.step + 1e-9) + 1
        points = [low + place * dimension.step for place in range(count)]
    elif dimension.log:
        points = list(np.geomspace(low, high, _GRID_POINTS))
    else:
        points = list(np.linspace(low, high, _GRID_POINTS))
    if dimension.kind is int:
        return sorted({int(np.rint(point)) for point in points})
    return sorted({min(max(float(f"{point:.10g}"), low), high) for point in points})


def _drawn(dimension: Dimension, trial: Suggester) -> Any:
    name, low, high = dimension.name, dimension.low, dimension.high
    if dimension.kind is str:
        return trial.suggest_categorical(name, dimension.choices)
    if dimension.kind is int:
        step = int(dimension.step) or 1
        return trial.suggest_int(name, int(low), int(high), step=step, log=dimension.log)
    return trial.suggest_float(name, low, high, step=dimension.step or None, log=dimension.log)


def _is_single(dimension: Dimension) -> bool:
    return len(dimension.choices) == 1


def _without_unused(space: SearchSpace) -> SearchSpace:
    """Drop dimensions that no trial draws; a fixed setting that depends on one becomes one."""
    fixed, kept = dict(space.fixed), dict[str, Dimension]()
    for dimension in space.dimensions:
        if dimension.setting not in fixed and _may_apply(dimension, kept, fixed):
            kept[dimension.name] = dimension
    for name, when in space.target.conditions.items():
        if name in fixed and set(when) <= set(kept):
            kept[name] = Dimension(name, name, choices=(fixed.pop(name),), when=when)
    # A number of layers has no effect if the widths that it counts are gone.
    needed = {name for dimension in kept.values() for name in dimension.when}
    dimensions = tuple(item for item in kept.values() if item.setting or item.name in needed)
    return SearchSpace(space.target, dimensions, fixed)


def _may_apply(
    dimension: Dimension, kept: Mapping[str, Dimension], fixed: Mapping[str, str]
) -> bool:
    for name, allowed in dimension.when.items():
        if name in kept:
            values = set(map(text_of, _values_of_decider(kept[name])))
        else:
            values = {fixed.get(name, "")}
        if not values & set(allowed):
            return False
    return True


def _check_used(space: SearchSpace, name: str) -> None:
    """Raise ConfigError if the given range ``name`` would change no trial."""
    whole = {dimension.name for dimension in space.dimensions} | set(space.fixed)
    if name in whole:
        return
    own = {dimension.name: dimension for dimension in TARGETS[space.target.stage].space}
    dimension = own.get(name)
    decided = {other.setting for other in own.values() if name in other.when}
    if dimension and not dimension.setting and not decided & whole:
        return  # a number of layers that leaves one width
    when = dimension.when if dimension else space.target.conditions.get(name, {})
    rivals = sorted((decided | ({dimension.setting} if dimension else set())) & whole)
    if rivals:
        reason = f"{rivals[0]} is given as a whole; leave one of them out"
    else:
        needs = " and ".join(f"{key} {' or '.join(v)}" for key, v in when.items())
        reason = f"it needs {needs}; leave it out, or allow that value"
    raise ConfigError(f"no trial would use {name} of the space: {reason}")


def _values_of_decider(decider: Dimension) -> Sequence[Any]:
    """Return the values of a dimension that others depend on: choices, or integers."""
    return decider.choices or range(int(decider.low), int(decider.high) + 1)


def _without_impossible_choices(space: SearchSpace, given: set[str]) -> SearchSpace:
    """Remove choices with which no config is valid.

    Raises:
        ConfigError: such a choice is among the ``given`` ones, or no config is valid at all.
    """
    reason = _why_impossible(space)
    if reason:
        raise ConfigError(f"no trial of this space is possible: {reason}")
    kept = []
    for dimension in space.dimensions:
        name, choices = dimension.name, dimension.choices
        refusals = {value: _why_impossible(space, name, value) for value in choices}
        refused = [value for value, reason in refusals.items() if reason]
        if refused and name in given:
            raise ConfigError(f"no trial can have {name} {refused[0]}: {refusals[refused[0]]}")
        choices = tuple(value for value in choices if value not in refused)
        kept.append(dataclasses.replace(dimension, choices=choices))
    return dataclasses.replace(space, dimensions=tuple(kept))


def _why_impossible(space: SearchSpace, name: str = "", value: str = "") -> str:
    """Return why no draw in which ``name`` has ``value`` is a valid config; "" if one is."""
    reason = ""
    for probe in range(_PROBES):
        draws = _RandomSuggester(probe, name, value)
        settings = space.draw(draws)
        if name and name not in draws.drawn:
            continue
        try:
            build_config(space.target, settings, from_mlflow=False)
        except ConfigError as error:
            reason = str(error)
        else:
            return ""
    return reason


class _RandomSuggester:
    """Suggest random values, but the given value of one dimension."""

    def __init__(self, seed: int, name: str, value: str) -> None:
        self._rng = np.random.default_rng(seed)
        self._name, self._value = name, value
        self.drawn: set[str] = set()

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """Return one of the steps, uniformly."""
        self.drawn.add(name)
        return low + step * int(self._rng.integers((high - low) // step + 1))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float:
        """Return a number of the range, uniformly."""
        self.drawn.add(name)
        return float(self._rng.uniform(low, high))

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        """Return the given value of the given dimension, else any choice."""
        self.drawn.add(name)
        if name == self._name and self._value:
            return self._value
        return choices[int(self._rng.integers(len(choices)))]
