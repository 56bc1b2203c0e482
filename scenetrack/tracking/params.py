"""Params of MLflow runs, compared whether ``mlflow run`` or scenetrack spelled them."""

from __future__ import annotations

import shlex

from mlflow import entities

_ENTRY_POINT_TAG = "mlflow.project.entryPoint"


def settings_of(run: entities.Run) -> dict[str, str]:
    """Return the run's params without the shell quotes that ``mlflow run`` logs them with."""
    params = dict(run.data.params)
    if _ENTRY_POINT_TAG not in run.data.tags:
        return params
    return {name: _unquoted(value) for name, value in params.items()}


def same_setting(a: str, b: str) -> bool:
    """Return whether two texts mean the same value: ``.5`` and ``0.5``, ``True`` and ``true``."""
    first, second = (
        [] if text in ("", "none") else [word.strip() for word in text.split(",")]
        for text in (a, b)
    )
    return len(first) == len(second) and all(map(_same_word, first, second))


def _unquoted(text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError:
        return text
    return words[0] if len(words) == 1 else text if words else ""


def _same_word(a: str, b: str) -> bool:
    if {a.lower(), b.lower()} <= {"true", "false"}:
        return a.lower() == b.lower()
    try:
        return float(a) == float(b)
    except ValueError:
        return a == b
