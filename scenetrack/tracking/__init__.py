"""Interprets records into MLflow runs: the only importer of mlflow."""

from scenetrack.tracking.models import resolve_model
from scenetrack.tracking.runs import (
    MlflowTracker,
    RunInfo,
    end_resumed,
    open_run,
    reconcile_stale_runs,
    resolve_run,
)
from scenetrack.tracking.store import connect, experiment_named, open_ui, tracking_uri

__all__ = [
    "MlflowTracker",
    "RunInfo",
    "connect",
    "end_resumed",
    "experiment_named",
    "open_run",
    "open_ui",
    "reconcile_stale_runs",
    "resolve_model",
    "resolve_run",
    "tracking_uri",
]
