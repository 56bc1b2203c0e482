"""The context of a study, which all of its steps share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import optuna

from scenetrack.config import TuneConfig
from scenetrack.tuning.space import SearchSpace

# Key of a study's user attributes: what it was begun with; and in that the digest of its data.
BEGUN_WITH, IMAGES = "begun_with", "images"

# Gives the function of an entry point by its name.
StageFunction: TypeAlias = Callable[[str], Callable[..., Any]]


@dataclass(frozen=True)
class StudyContext:
    """A study that is being worked on.

    Attributes:
        study: in its storage.
        config: its settings.
        space: what its trials draw from, and what stays.
        run_id: its MLflow run.
        stage_function: gives the function that a trial runs.
    """

    study: optuna.Study
    config: TuneConfig
    space: SearchSpace
    run_id: str
    stage_function: StageFunction
