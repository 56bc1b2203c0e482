"""The space of a study: the target's own, narrowed or widened, with what is fixed taken out."""

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
from scenetrack.tuning.ranges import changed, check_setting, parsed_ranges, text_of

# Points of a number that a grid tries where no step is given.
_GRID_POINTS = 3
# Draws among which a value that can be had at all is taken to show itself.
_PROBES = 64


class Draws(Protocol):
    """What draws: an ``optuna.Trial``, or anything with its ways."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """A whole number."""
        ...

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float:
        """A number."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> Any:
        """One of the choices."""
        ...


@dataclass(frozen=True)
class SearchSpace:
    """What is drawn and what stays.

    Attributes:
        target: the config of the entry point.
        dimensions: those that are drawn, each after those that it depends on.
        fixed: settings that stay, as texts of the command line.
    """

    target: type[EvaluatedConfig]
    dimensions: tuple[Dimension, ...]
    fixed: Mapping[str, str]

    def draw(self, trial: Draws) -> dict[str, str]:
        """The settings of a trial, those that stay included, as texts of the command line."""
        return self._settings(lambda dimension: _drawn(dimension, trial))

    def grid(self) -> Iterator[dict[str, Any]]:
        """The combinations of a grid one by one: the values of each drawn dimension by its name.

        There may be millions of them; the last dimension changes first.
        """
        return self._combinations({}, self.dimensions)

    def grid_size(self, most: int) -> int:
        """How many combinations the grid has, counted up to ``most``."""
        return sum(1 for _ in islice(self.grid(), most))

    def table(self) -> list[tuple[str, str, str, str]]:
        """Rows of dimension, values, the setting that it sets, and when it is drawn."""
        return [
            (
                one.name,
                one.values,
                one.setting or "(decides others)",
                " and ".join(f"{name} is {' or '.join(some)}" for name, some in one.when.items()),
            )
            for one in self.dimensions
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
        """Whether what is drawn so far, or stays, asks for ``dimension``."""
        return all(
            text_of(known.get(name, self.fixed.get(name, ""))) in allowed
            for name, allowed in dimension.when.items()
        )


def search_space(
    target: type[EvaluatedConfig], given: str = "", fixed: Mapping[str, str] | None = None
) -> SearchSpace:
    """The space of ``target`` as ``--space`` and fixed settings change it.

    Choices of the target's own space that cannot go with what is fixed are left out. A setting that
    stays, but only goes with some of what is drawn, is left out of the other trials.

    Args:
        target: config of one of ``config.TARGETS``.
        given: ``NAME=VALUES; ...``, or the path of a TOML file with such pairs, see
            ``ranges.parsed_ranges``.
        fixed: settings that stay; they take out the dimensions that would set them.

    Raises:
        ConfigError: an unknown name, a value that no trial could have, or nothing left to search.
    """
    stays = dict(fixed or {})
    for name, text in stays.items():
        check_setting(target, name, text)
    own = {one.name: one for one in TARGETS[target.stage].space}
    ranges = parsed_ranges(given)
    # Parts of a setting first, as a setting given as a whole takes its parts out.
    for name, values in sorted(ranges.items(), key=lambda item: item[0] not in own):
        one = changed(target, own.get(name), name, values)
        if one.setting in stays:
            raise ConfigError(
                f"{one.setting} stays at {stays[one.setting]}, and the space gives {name}: leave "
                "one of them out"
            )
        if name not in own:  # it sets as a whole what others set in parts
            own = {key: other for key, other in own.items() if other.setting != name}
        own[name] = one
    singles = {n: one.choices[0] for n, one in own.items() if n in ranges and _is_single(one)}
    space = _reduced(SearchSpace(target, tuple(own.values()), {**stays, **singles}))
    if not space.dimensions:
        raise ConfigError("something to search is required, but every setting is fixed")
    for name in ranges:
        _check_use(space, name)
    return _possible(space, set(ranges))


def grid_values(dimension: Dimension) -> list[Any]:
    """What a grid tries of a dimension: all choices, or all steps, or a few points between."""
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


def _drawn(dimension: Dimension, trial: Draws) -> Any:
    name, low, high = dimension.name, dimension.low, dimension.high
    if dimension.kind is str:
        return trial.suggest_categorical(name, dimension.choices)
    if dimension.kind is int:
        step = int(dimension.step) or 1
        return trial.suggest_int(name, int(low), int(high), step=step, log=dimension.log)
    return trial.suggest_float(name, low, high, step=dimension.step or None, log=dimension.log)


def _is_single(one: Dimension) -> bool:
    return len(one.choices) == 1


def _reduced(space: SearchSpace) -> SearchSpace:
    """Without dimensions that no trial draws; what stays and depends on a drawn one becomes one."""
    fixed, kept = dict(space.fixed), dict[str, Dimension]()
    for one in space.dimensions:
        if one.setting not in fixed and _may_apply(one, kept, fixed):
            kept[one.name] = one
    for name, when in space.target.conditions.items():
        if name in fixed and set(when) <= set(kept):
            kept[name] = Dimension(name, name, choices=(fixed.pop(name),), when=when)
    # Without the widths that it counts, a number of layers decides nothing.
    needed = {name for one in kept.values() for name in one.when}
    dimensions = tuple(one for one in kept.values() if one.setting or one.name in needed)
    return SearchSpace(space.target, dimensions, fixed)


def _may_apply(one: Dimension, kept: Mapping[str, Dimension], fixed: Mapping[str, str]) -> bool:
    for name, allowed in one.when.items():
        if name in kept:
            values = set(map(text_of, _all_values(kept[name])))
        else:
            values = {fixed.get(name, "")}
        if not values & set(allowed):
            return False
    return True


def _check_use(space: SearchSpace, name: str) -> None:
    """Raise ConfigError where the given range ``name`` would change no trial."""
    whole = {one.name for one in space.dimensions} | set(space.fixed)
    if name in whole:
        return
    own = {one.name: one for one in TARGETS[space.target.stage].space}
    one = own.get(name)
    decided = {other.setting for other in own.values() if name in other.when}
    if one and not one.setting and not decided & whole:
        return  # a number of layers that leaves one width
    when = one.when if one else space.target.conditions.get(name, {})
    rivals = sorted((decided | ({one.setting} if one else set())) & whole)
    if rivals:
        reason = f"{rivals[0]} is given as a whole; leave one of them out"
    else:
        needs = " and ".join(f"{key} {' or '.join(v)}" for key, v in when.items())
        reason = f"it needs {needs}; leave it out, or let trials have that"
    raise ConfigError(f"no trial would use {name} of the space: {reason}")


def _all_values(decider: Dimension) -> Sequence[Any]:
    """Of a dimension that others depend on: choices, or whole numbers."""
    return decider.choices or range(int(decider.low), int(decider.high) + 1)


def _possible(space: SearchSpace, given: set[str]) -> SearchSpace:
    """Without choices that no trial could have.

    Raises:
        ConfigError: such a choice is among the ``given`` ones, or no value would be left.
    """
    reason = _refusal(space)
    if reason:
        raise ConfigError(f"no trial of this space is possible: {reason}")
    kept = []
    for one in space.dimensions:
        refusals = {value: _refusal(space, one.name, value) for value in one.choices}
        refused = [value for value, reason in refusals.items() if reason]
        if refused and one.name in given:
            raise ConfigError(
                f"no trial could have {one.name} {refused[0]}: {refusals[refused[0]]}"
            )
        choices = tuple(value for value in one.choices if value not in refused)
        kept.append(dataclasses.replace(one, choices=choices))
    return dataclasses.replace(space, dimensions=tuple(kept))


def _refusal(space: SearchSpace, name: str = "", value: str = "") -> str:
    """Why no draw, where ``name`` has that value, is a possible config; "" where one is."""
    reason = ""
    for probe in range(_PROBES):
        draws = _Probe(probe, name, value)
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


class _Probe:
    """Random values, but one that is given."""

    def __init__(self, seed: int, name: str, value: str) -> None:
        self._rng = np.random.default_rng(seed)
        self._name, self._value = name, value
        self.drawn: set[str] = set()

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """Evenly among the steps."""
        self.drawn.add(name)
        return low + step * int(self._rng.integers((high - low) // step + 1))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float:
        """Evenly in the range."""
        self.drawn.add(name)
        return float(self._rng.uniform(low, high))

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        """The given value, or any."""
        self.drawn.add(name)
        if name == self._name and self._value:
            return self._value
        return choices[int(self._rng.integers(len(choices)))]
