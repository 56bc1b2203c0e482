"""The first trial of a study: the default settings, the baseline of all other trials."""

from __future__ import annotations

import dataclasses
from typing import Any

from scenetrack.config import format_value
from scenetrack.config.dimensions import Dimension
from scenetrack.config.parsing import build_config
from scenetrack.errors import ConfigError
from scenetrack.tuning.space import SearchSpace


def baseline_values(space: SearchSpace) -> dict[str, Any]:
    """Return the values with which the dimensions give the target's default settings.

    Args:
        space: search space of the study; a preset among its fixed settings changes the defaults.

    Returns:
        Values by dimension. A value outside the range of its dimension is left out, so that the
        sampler draws it; the result is empty if the defaults contradict the fixed settings.
    """
    try:
        config = build_config(space.target, space.fixed, from_mlflow=False)
    except ConfigError:
        return {}
    settings = {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}
    values: dict[str, Any] = {}
    for dimension in space.dimensions:
        value = _default_value(dimension, space, settings)
        if value is not None and _is_in_range(dimension, value):
            values[dimension.name] = value
    return values


def _default_value(dimension: Dimension, space: SearchSpace, settings: dict[str, Any]) -> Any:
    if not dimension.setting:  # the dimension is the length of a list
        parts = [part for part in space.dimensions if dimension.name in part.when]
        return len(settings[parts[0].setting])
    value = settings[dimension.setting]
    if dimension.kind is str:
        return format_value(value)
    if not isinstance(value, tuple):
        return value
    siblings = [part.name for part in space.dimensions if part.setting == dimension.setting]
    place = siblings.index(dimension.name)
    return value[place] if place < len(value) else None


def _is_in_range(dimension: Dimension, value: Any) -> bool:
    if dimension.kind is str:
        return str(value) in dimension.choices
    if not dimension.low <= value <= dimension.high:
        return False
    steps = (value - dimension.low) / dimension.step if dimension.step else 0.0
    return bool(abs(steps - round(steps)) < 1e-9)
