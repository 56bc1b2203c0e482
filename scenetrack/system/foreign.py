"""Reading of texts that somebody else may have written, with one kind of error: ValueError.

Whatever comes out of a run, a study, a model's metadata or a journal is such a text: others can
write to the store, and a user may edit what lies on a disk.
"""

from __future__ import annotations

import json
from typing import Any


def parsed_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is no JSON, or is nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def distinct_names(value: object) -> tuple[str, ...]:
    """Return a list of names as a tuple.

    Raises:
        ValueError: it is no list; a name is empty, occurs twice, or is no text that can be written
            in UTF-8, such as a lone surrogate.
    """
    if not isinstance(value, list | tuple):
        raise ValueError(f"a list of names is required. Received: {type(value).__name__}")
    if not all(isinstance(name, str) and name for name in value) or len(set(value)) < len(value):
        raise ValueError("names that are texts and differ from each other are required")
    "".join(value).encode()
    return tuple(value)


def whole_number(text: str, low: int, high: int) -> int:
    """Return the whole number that a text holds.

    Raises:
        ValueError: it is none in decimal digits, or lies outside ``low`` to ``high``.
    """
    digits = text.removeprefix("-")
    # Python alone reads 1_0, spaces and other alphabets' digits as numbers too.
    if not (digits.isascii() and digits.isdecimal()) or not low <= int(text) <= high:
        raise ValueError(f"a whole number from {low} to {high} is required. Received: {text!r}")
    return int(text)
