"""The entry point ``tune``: a study of trials, its refit and its report."""

from scenetrack.stages.tune.study import tune

__all__ = ["tune"]
