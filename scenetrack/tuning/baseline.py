"""The target's own settings as the first trial of a study: what the others are measured by."""

from __future__ import annotations

import dataclasses
from typing import Any

from scenetrack.config import format_value
from scenetrack.config.dimensions import Dimension
from scenetrack.config.parsing import build_config
from scenetrack.errors import ConfigError
from scenetrack.tuning.space import SearchSpace


def baseline(space: SearchSpace) -> dict[str, Any]:
    """What the dimensions would have drawn to give the settings that nobody changed.

    Args:
        space: of the study; a preset among its fixed settings counts.

    Returns:
        Values by dimension; those that lie in no range are left out, to be drawn: all of them where
        the defaults cannot go with what is fixed.
    """
    try:
        config = build_config(space.target, space.fixed, from_mlflow=False)
    except ConfigError:
        return {}
    settings = {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}
    found: dict[str, Any] = {}
    for dimension in space.dimensions:
        value = _value(dimension, space, settings)
        if value is not None and _lies_in(dimension, value):
            found[dimension.name] = value
    return found


def _value(dimension: Dimension, space: SearchSpace, settings: dict[str, Any]) -> Any:
    if not dimension.setting:  # it counts the parts of the list that depend on it
        parts = [one for one in space.dimensions if dimension.name in one.when]
        return len(settings[parts[0].setting])
    value = settings[dimension.setting]
    if dimension.kind is str:
        return format_value(value)
    if not isinstance(value, tuple):
        return value
    siblings = [one.name for one in space.dimensions if one.setting == dimension.setting]
    place = siblings.index(dimension.name)
    return value[place] if place < len(value) else None


def _lies_in(dimension: Dimension, value: Any) -> bool:
    if dimension.kind is str:
        return str(value) in dimension.choices
    if not dimension.low <= value <= dimension.high:
        return False
    steps = (value - dimension.low) / dimension.step if dimension.step else 0.0
    return bool(abs(steps - round(steps)) < 1e-9)
