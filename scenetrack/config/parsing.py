"""Parsing of command-line texts into settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from scenetrack.config.base import EntryPointConfig, field_types
from scenetrack.errors import ConfigError

EMPTY_LIST = "none"
_Config = TypeVar("_Config", bound=EntryPointConfig)
_KINDS = {int: "a whole number", float: "a number", str: "a text"}
_TRUTH = {"true": True, "false": False}


def flag_name(parameter: str) -> str:
    """Return the command-line flag of a parameter: ``image_size`` -> ``--image-size``."""
    return "--" + parameter.replace("_", "-")


def parse_value(name: str, text: str, kind: Any) -> Any:
    """Return a parameter's value from its text, the inverse of ``config.format_value``.

    Args:
        name: name of the parameter, for the error message.
        text: ``12``, ``0.5``, ``true``, ``gelu``, ``1024,512``, or ``none`` for an empty list.
        kind: int, float, bool, str, or a tuple of any number of one of them.

    Raises:
        ConfigError: ``text`` is no value of that kind.
    """
    if get_args(kind):
        words = [] if text.strip() == EMPTY_LIST else text.split(",")
        return tuple(parse_value(name, word.strip(), get_args(kind)[0]) for word in words)
    if kind is bool:
        if text.lower() not in _TRUTH:
            raise ConfigError(f"{flag_name(name)} must be true or false. Received: {text!r}")
        return _TRUTH[text.lower()]
    try:
        if kind is not str and ("_" in text or not text.isascii()):
            raise ValueError(text)  # Python reads 1_0 and other alphabets' digits as numbers
        return kind(text)
    except ValueError:
        raise ConfigError(f"{flag_name(name)} must be {_KINDS[kind]}. Received: {text!r}") from None


def build_config(
    config: type[_Config],
    given: Mapping[str, str | tuple[str, ...]],
    *,
    from_mlflow: bool,
) -> _Config:
    """Return the entry point's config from the texts given for its parameters.

    A parameter that takes the rest of the command line is given as a tuple of words.

    An empty text for a parameter that is no text means its default, because ``mlflow run`` has no
    other way to leave one out. With ``from_mlflow`` a value equal to its default counts as not
    given, because ``mlflow run`` passes every parameter and a preset could never apply.

    Raises:
        ConfigError: a value has the wrong type, is out of range, or contradicts another one.
    """
    types = field_types(config)
    defaults = {item.name: item.default for item in dataclasses.fields(config)}
    values: dict[str, Any] = {
        name: parse_value(name, text, types[name]) if isinstance(text, str) else text
        for name, text in given.items()
        if text or types[name] is str
    }
    if from_mlflow:
        values = {name: value for name, value in values.items() if value != defaults[name]}
    preset: str = values.pop("preset", "")
    return config.from_values(values, preset)


def parsed_pairs(text: str, *, hyphens: bool = False) -> dict[str, str]:
    """Return the values of ``NAME=VALUE; NAME=VALUE`` by name.

    Args:
        text: text from the command line.
        hyphens: whether hyphens of names are kept; else they become ``_``, as in flags.

    Raises:
        ConfigError: the text has another form.
    """
    pairs = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, value = part.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise ConfigError(f"NAME=VALUE is required, with ; between them. Received: {part!r}")
        name = name.strip() if hyphens else name.strip().replace("-", "_")
        pairs[name] = value.strip()
    return pairs
