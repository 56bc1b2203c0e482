"""Parser of the search ranges that the command line or a TOML file gives."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

from scenetrack.config import EvaluatedConfig, field_types
from scenetrack.config.base import DATA_SETTINGS, check_value
from scenetrack.config.dimensions import Dimension
from scenetrack.config.parsing import parse_value, parsed_pairs
from scenetrack.errors import ConfigError

# Settings of the study, which its trials share.
_STUDY_SETTINGS = (*DATA_SETTINGS, "repeats", "test", "resume")
_KINDS = {int: "whole numbers", float: "numbers"}


def parsed_ranges(given: str) -> dict[str, str]:
    """Parse ``NAME=VALUES; NAME=VALUES``, or the TOML file of that name, to values by name.

    VALUES are ``LOW:HIGH``, ``LOW:HIGH:log``, ``LOW:HIGH:STEP``, choices separated by ``|``, or one
    fixed value. TOML files may also have a list of choices, or a table of low, high, log and step.

    Raises:
        ConfigError: ``given`` has none of these forms.
    """
    if given.strip().endswith(".toml"):
        return _read_toml(Path(given.strip()).expanduser())
    return parsed_pairs(given)


def check_setting(target: type[EvaluatedConfig], name: str, text: str) -> None:
    """Raise ConfigError if ``text`` is no valid value of the target's parameter ``name``.

    Contradictions with other parameters are checked when the whole config is built.
    """
    _check_name(target, name)
    value = parse_value(name, text, field_types(target)[name])
    (item,) = (item for item in dataclasses.fields(target) if item.name == name)
    check_value(item, value)


def changed_dimension(
    target: type[EvaluatedConfig], own: Dimension | None, name: str, values: str
) -> Dimension:
    """Return the dimension ``name`` with other values.

    Args:
        target: config class whose setting the dimension sets.
        own: dimension of that name in the target's default space, or None.
        name: name of the dimension, or of a parameter of the target.
        values: new values, see ``parsed_ranges``.

    Raises:
        ConfigError: unknown name, or invalid values.
    """
    if own is None:
        _check_name(target, name)
        kind = _item_kind(target, name)
        own = Dimension(name, name, kind, when=target.conditions.get(name, {}))
    elif ":" in values and own.setting == name and own.kind is str:
        own = dataclasses.replace(own, kind=_item_kind(target, name), choices=())
    if own.setting != name and ":" not in values and "|" not in values:
        values = f"{values}:{values}"
    if ":" in values and own.kind is not str:
        return _range(target, own, values)
    if own.setting != name:
        raise ConfigError(f"{name} needs a range LOW:HIGH. Received: {values!r}")
    choices = tuple(part.strip() for part in values.split("|"))
    if len(set(choices)) < len(choices) or not all(choices):
        raise ConfigError(f"{name} needs different values, none empty. Received: {values!r}")
    for text in choices:
        check_setting(target, name, text)
    return dataclasses.replace(own, kind=str, choices=choices)


def text_of(value: object) -> str:
    """Return a drawn value as text for the command line."""
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _check_name(target: type[EvaluatedConfig], name: str) -> None:
    if name in _STUDY_SETTINGS:
        raise ConfigError(f"{name} is a setting of the study, not of its target: give it to tune")
    if name not in field_types(target):
        raise ConfigError(
            f"{target.stage} has no parameter {name!r}: scenetrack {target.stage} --help lists "
            f"them; scenetrack tune --target {target.stage} --show-space lists the search space"
        )


def _item_kind(target: type[EvaluatedConfig], name: str) -> type:
    kind = field_types(target)[name]
    return kind if kind in (int, float) else str


def _range(target: type[EvaluatedConfig], own: Dimension, values: str) -> Dimension:
    words = [word.strip() for word in values.split(":")]
    log = words[2:] == ["log"]
    try:
        if len(words) > 3:
            raise ConfigError(values)
        numbers = [parse_value(own.name, word, own.kind) for word in words[: 2 if log else 3]]
    except ConfigError:
        raise ConfigError(
            f"{own.name} needs LOW:HIGH, LOW:HIGH:log or LOW:HIGH:STEP in {_KINDS[own.kind]}. "
            f"Received: {values!r}"
        ) from None
    low, high, step = numbers if len(numbers) == 3 else (*numbers, 0)
    stepped = len(numbers) == 3
    if not low <= high or (log and low <= 0) or (stepped and not step > 0):
        raise ConfigError(
            f"{own.name} needs LOW up to HIGH, above 0 for log, and a STEP above 0. "
            f"Received: {values!r}"
        )
    if not own.setting and not own.low <= low <= high <= own.high:
        raise ConfigError(
            f"{own.name} must lie in {own.low:.10g} to {own.high:.10g}: there are no more "
            f"dimensions that it can switch on. Received: {values!r}"
        )
    if step:
        high = own.kind(text_of(low + int((high - low) / step + 1e-9) * step))
    for value in (low, high):
        if own.setting:
            check_setting(target, own.setting, text_of(value))
    return dataclasses.replace(own, low=low, high=high, log=log, step=step, choices=())


def _read_toml(path: Path) -> dict[str, str]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"a TOML file is required, but {path} is not one: {error}") from None
    return {name.replace("-", "_"): _toml_values(name, value) for name, value in content.items()}


def _toml_values(name: str, value: Any) -> str:
    if isinstance(value, list):
        return "|".join(map(_toml_text, value))
    if not isinstance(value, dict):
        return _toml_text(value)
    unknown = sorted(set(value) - {"low", "high", "log", "step"})
    if unknown or not {"low", "high"} <= set(value) or ("log" in value and "step" in value):
        raise ConfigError(
            f"{name} needs low and high, and may have log or step. Received: {sorted(value)}"
        )
    last = "log" if value.get("log") else value.get("step", "")
    return f"{value['low']}:{value['high']}" + (f":{last}" if last != "" else "")


def _toml_text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_toml_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
