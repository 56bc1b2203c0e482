"""MLflow runs written from records, and the lookup of runs and models: the only mlflow importer."""

from scenetrack.tracking.lookup import RunInfo, children, resolve_run, run_figures, run_file
from scenetrack.tracking.models import find_onnx, registered_onnx, resolve_model, resolve_onnx
from scenetrack.tracking.runs import (
    MlflowTracker,
    begin_run,
    end_resumed,
    open_run,
    reconcile_stale_runs,
    run_again,
)
from scenetrack.tracking.saving import check_registry, log_bundle, register_champion
from scenetrack.tracking.store import connect, experiment_named, open_ui, tracking_uri
from scenetrack.tracking.studies import (
    fail_run,
    finish_run,
    is_known,
    join_run,
    joined_by,
    stop_run,
)

__all__ = [
    "MlflowTracker",
    "RunInfo",
    "begin_run",
    "check_registry",
    "children",
    "connect",
    "end_resumed",
    "experiment_named",
    "fail_run",
    "find_onnx",
    "finish_run",
    "is_known",
    "join_run",
    "joined_by",
    "log_bundle",
    "open_run",
    "open_ui",
    "reconcile_stale_runs",
    "register_champion",
    "registered_onnx",
    "resolve_model",
    "resolve_onnx",
    "resolve_run",
    "run_again",
    "run_figures",
    "run_file",
    "stop_run",
    "tracking_uri",
]
