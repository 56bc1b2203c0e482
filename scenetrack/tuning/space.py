"""The space of a study: the target's own, narrowed or widened, with what is fixed taken out."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from scenetrack.config import EvaluatedConfig, field_types
from scenetrack.config.spaces import SPACES, Dimension
from scenetrack.config.texts import build_config, parsed_pairs
from scenetrack.errors import ConfigError

# Points of a number that a grid tries where no step is given.
_GRID_POINTS = 3
_KINDS = {int: "whole numbers", float: "numbers"}


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

    def grid(self) -> list[dict[str, Any]]:
        """All combinations of a grid: the values of each drawn dimension by its name."""
        found: list[dict[str, Any]] = [{}]
        for dimension in self.dimensions:
            values = grid_values(dimension)
            found = [
                {**one, dimension.name: value}
                for one in found
                for value in (values if self._applies(dimension, one) else [None])
            ]
        return [{k: v for k, v in one.items() if v is not None} for one in found]

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
                parts.setdefault(dimension.setting, []).append(_text(value))
        return {**self.fixed, **{name: ",".join(words) for name, words in parts.items()}}

    def _applies(self, dimension: Dimension, known: Mapping[str, Any]) -> bool:
        """Whether what is drawn so far, or stays, asks for ``dimension``."""
        defaults = {item.name: item.default for item in dataclasses.fields(self.target)}
        for name, allowed in dimension.when.items():
            value = known.get(name, self.fixed.get(name, defaults.get(name)))
            if value is not None and _text(value) not in allowed:
                return False
            if value is None:
                return False
        return True


def search_space(
    target: type[EvaluatedConfig], given: str = "", fixed: Mapping[str, str] | None = None
) -> SearchSpace:
    """The space of ``target`` as ``--space`` and fixed settings change it.

    Args:
        target: one of ``config.TARGETS``.
        given: ``NAME=VALUES; ...``, or the path of a TOML file with such pairs, see
            ``parsed_ranges``.
        fixed: settings that stay; they take out the dimensions that would set them.

    Raises:
        ConfigError: an unknown name, a range that cannot be, or nothing left to search.
    """
    fixed = dict(fixed or {})
    own = {one.name: one for one in SPACES[target.stage]}
    for name in fixed:
        _check_setting(target, name)
    build_config(target, fixed, from_mlflow=False)
    for name, values in parsed_ranges(given).items():
        dimension = _changed(target, own.get(name), name, values)
        if isinstance(dimension, Dimension):
            own[name] = dimension
            fixed.pop(dimension.setting, None)
        else:
            fixed[name] = dimension
    kept = [one for one in own.values() if one.setting not in fixed]
    # Without the widths that it counts, a number of layers decides nothing.
    needed = {name for one in kept for name in one.when}
    kept = [one for one in kept if one.setting or one.name in needed]
    if not kept:
        raise ConfigError("something to search is required, but every setting is fixed")
    return SearchSpace(target, tuple(kept), fixed)


def parsed_ranges(given: str) -> dict[str, str]:
    """``NAME=VALUES; NAME=VALUES`` or the content of a TOML file as values by name.

    VALUES are ``LOW:HIGH``, ``LOW:HIGH:log``, ``LOW:HIGH:STEP``, texts with ``|`` between them, or
    one value that stays. In TOML a list of texts, or a table of low, high, log and step, will do.

    Raises:
        ConfigError: it is neither.
    """
    if given.strip().endswith(".toml"):
        return _of_toml(Path(given.strip()).expanduser())
    return parsed_pairs(given)


def grid_values(dimension: Dimension) -> list[Any]:
    """What a grid tries of a dimension: all choices, or all steps, or a few points between."""
    if dimension.kind is str:
        return list(dimension.choices)
    low, high = dimension.low, dimension.high
    if dimension.step:
        count = int((high - low) / dimension.step + 1e-9) + 1
        points = [low + place * dimension.step for place in range(count)]
    elif dimension.kind is int and not dimension.log and high - low < _GRID_POINTS:
        points = list(np.arange(low, high + 1))
    elif dimension.log:
        points = list(np.geomspace(low, high, _GRID_POINTS))
    else:
        points = list(np.linspace(low, high, _GRID_POINTS))
    if dimension.kind is int:
        return sorted({int(np.rint(point)) for point in points})
    return sorted({float(f"{point:.10g}") for point in points})


def _drawn(dimension: Dimension, trial: Draws) -> Any:
    name, low, high = dimension.name, dimension.low, dimension.high
    if dimension.kind is str:
        return trial.suggest_categorical(name, dimension.choices)
    if dimension.kind is int:
        step = int(dimension.step) or 1
        return trial.suggest_int(name, int(low), int(high), step=step, log=dimension.log)
    return trial.suggest_float(name, low, high, step=dimension.step or None, log=dimension.log)


def _text(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _of_toml(path: Path) -> dict[str, str]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"a TOML file is required, but {path} is none: {error}") from None
    return {name.replace("-", "_"): _toml_values(name, value) for name, value in content.items()}


def _toml_values(name: str, value: Any) -> str:
    if isinstance(value, list):
        return "|".join(map(str, value))
    if isinstance(value, dict):
        unknown = sorted(set(value) - {"low", "high", "log", "step"})
        if unknown or not {"low", "high"} <= set(value):
            raise ConfigError(
                f"{name} needs low and high, and may have log or step. Received: {sorted(value)}"
            )
        last = "log" if value.get("log") else value.get("step", "")
        return f"{value['low']}:{value['high']}" + (f":{last}" if last else "")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_setting(target: type[EvaluatedConfig], name: str) -> None:
    if name not in field_types(target):
        raise ConfigError(
            f"{target.stage} has no parameter {name!r}: scenetrack {target.stage} --help lists them"
        )


def _changed(
    target: type[EvaluatedConfig], own: Dimension | None, name: str, values: str
) -> Dimension | str:
    """The dimension ``name`` with other values; a text where it is a single one that stays."""
    if own is None:
        _check_setting(target, name)
        own = Dimension(name, name, _item_kind(target, name))
    if ":" in values and own.kind is not str:
        return _range(target, own, values)
    choices = tuple(part.strip() for part in values.split("|"))
    if own.setting != name:  # a part of a list, or of no setting
        raise ConfigError(f"{name} needs a range LOW:HIGH. Received: {values!r}")
    _check_choices(target, own, choices)
    if len(choices) == 1:
        return choices[0]
    return dataclasses.replace(own, kind=str, choices=choices)


def _item_kind(target: type[EvaluatedConfig], name: str) -> type:
    kind = field_types(target)[name]
    return kind if kind in (int, float) else str


def _range(target: type[EvaluatedConfig], own: Dimension, values: str) -> Dimension:
    words = [word.strip() for word in values.split(":")]
    try:
        low, high = (own.kind(word) for word in words[:2])
        log = words[2:] == ["log"]
        step = own.kind(words[2]) if len(words) > 2 and not log else 0
        if len(words) > 3:
            raise ValueError(values)
    except ValueError:
        raise ConfigError(
            f"{own.name} needs LOW:HIGH, LOW:HIGH:log or LOW:HIGH:STEP in {_KINDS[own.kind]}. "
            f"Received: {values!r}"
        ) from None
    if not low <= high or (log and low <= 0) or step < 0:
        raise ConfigError(
            f"{own.name} needs LOW up to HIGH, above 0 for log, and a STEP above 0. "
            f"Received: {values!r}"
        )
    changed = dataclasses.replace(own, low=low, high=high, log=log, step=step, choices=())
    for value in (low, high):
        _check_value(target, changed, _text(value))
    return changed


def _check_choices(target: type[EvaluatedConfig], own: Dimension, choices: tuple[str, ...]) -> None:
    if len(set(choices)) < len(choices):
        raise ConfigError(f"{own.name} must name each value once. Received: {'|'.join(choices)}")
    for value in choices:
        _check_value(target, own, value)


def _check_value(target: type[EvaluatedConfig], own: Dimension, text: str) -> None:
    """Raise ConfigError where the target's parameter cannot have that value."""
    if own.setting:
        build_config(target, {own.setting: text}, from_mlflow=False)
