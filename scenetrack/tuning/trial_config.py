"""Config of the target that a trial runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from scenetrack.config import EvaluatedConfig, TuneConfig
from scenetrack.config.base import DATA_SETTINGS
from scenetrack.config.parsing import build_config
from scenetrack.tuning.space import SearchSpace


def trial_config(
    config: TuneConfig, space: SearchSpace, settings: Mapping[str, str], *, test: bool = False
) -> EvaluatedConfig:
    """Return the target's config with the settings of a trial, or of the refit."""
    shared = {name: getattr(config, name) for name in DATA_SETTINGS}
    target = build_config(space.target, settings, from_mlflow=False)
    return dataclasses.replace(target, **shared, test=test)
