"""What a storage holds of a study, checked before it is used: others can write to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from scenetrack.errors import InputError
from scenetrack.stages.tune.refit import REFIT
from scenetrack.stages.tune.run_trial import KERNEL, METHOD
from scenetrack.system.foreign import parsed_json
from scenetrack.tuning.trial_state import FAILURE, OWNER, RETRY_OF, RUN, SAVED_S
from scenetrack.tuning.worker import SETTINGS


def check_study(study: optuna.Study, directions: Sequence[str]) -> None:
    """Check that a study and its trials hold what this program writes.

    Args:
        study: as it was found.
        directions: ``maximize`` or ``minimize`` for each objective.

    Raises:
        InputError: it has other objectives, or an entry that cannot be.
    """
    found = [direction.name.lower() for direction in study.directions]
    if found != list(directions):
        raise InputError(
            f"a study whose objectives are to {_listed(directions)} is required, but "
            f"{study.study_name!r} has {_listed(found)}: choose the objectives that it was begun "
            "with, or another name with --study"
        )
    refit = study.user_attrs.get(REFIT, {})
    if not (isinstance(refit, Mapping) and (not refit or _is_refit(refit))):
        raise _damaged(study, f"its entry {REFIT}")
    for trial in study.get_trials(deepcopy=False):
        wrong = _wrong_entry(trial, len(directions))
        if wrong:
            raise _damaged(study, f"the entry {wrong} of trial {trial.number}")


def _listed(directions: Sequence[str]) -> str:
    return ", ".join(directions) or "none"


def _damaged(study: optuna.Study, what: str) -> InputError:
    return InputError(
        f"a study as scenetrack writes it is required, but {what} in {study.study_name!r} cannot "
        "be used: choose another name with --study"
    )


def _wrong_entry(trial: FrozenTrial, objectives: int) -> str:
    """Return the name of an entry of the trial that cannot be used; "" where there is none."""
    entries = trial.user_attrs
    for name, holds in _ENTRIES.items():
        if name in entries and not holds(entries[name]):
            return name
    if trial.state != TrialState.COMPLETE:
        return ""
    missing = [name for name in (SETTINGS, RUN) if name not in entries]
    if missing:
        return missing[0]
    values = trial.values
    return "" if len(values) == objectives and all(map(_is_number, values)) else "values"


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_owner(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and all(isinstance(value.get(key), str) for key in ("host", "pid", "process"))
        and value["pid"].isascii()
        and value["pid"].isdecimal()
        and len(value["pid"]) < _PID_DIGITS
    )


def _are_settings(value: object) -> bool:
    try:
        found = parsed_json(value) if isinstance(value, str) else None
    except ValueError:
        return False
    return isinstance(found, dict) and all(map(_is_text, found.values()))


def _is_refit(value: Mapping[str, Any]) -> bool:
    figures, registered = value.get("figures"), value.get("registered")
    return (
        isinstance(value.get("trial"), int)
        and all(isinstance(value.get(key), str) for key in ("run", "method"))
        and isinstance(figures, Mapping)
        and all(map(_is_number, figures.values()))
        and figures.keys() >= {"test/accuracy", "test/accuracy_low", "test/accuracy_high"}
        and isinstance(registered, Mapping)
    )


_PID_DIGITS = 10
# What each entry of a trial must be where it is there.
_ENTRIES: Mapping[str, Callable[[object], bool]] = {
    OWNER: _is_owner,
    RUN: _is_text,
    SETTINGS: _are_settings,
    METHOD: _is_text,
    KERNEL: _is_text,
    FAILURE: _is_text,
    RETRY_OF: lambda value: isinstance(value, int),
    SAVED_S: _is_number,
}
