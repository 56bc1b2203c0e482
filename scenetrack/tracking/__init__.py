"""Interprets records into MLflow runs and finds what they hold: the only importer of mlflow."""

from scenetrack.tracking.lookup import RunInfo, children, resolve_run, run_file
from scenetrack.tracking.models import find_onnx, registered_onnx, resolve_model, resolve_onnx
from scenetrack.tracking.runs import (
    MlflowTracker,
    end_resumed,
    open_run,
    reconcile_stale_runs,
)
from scenetrack.tracking.saving import log_bundle
from scenetrack.tracking.store import connect, experiment_named, open_ui, tracking_uri

__all__ = [
    "MlflowTracker",
    "RunInfo",
    "children",
    "connect",
    "end_resumed",
    "experiment_named",
    "find_onnx",
    "log_bundle",
    "open_run",
    "open_ui",
    "reconcile_stale_runs",
    "registered_onnx",
    "resolve_model",
    "resolve_onnx",
    "resolve_run",
    "run_file",
    "tracking_uri",
]
