"""Lookup of MLflow runs: settings, tags, metrics, artifact files; nothing is loaded or executed."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import mlflow
from mlflow import entities
from mlflow.exceptions import MlflowException

from scenetrack.errors import ModelError
from scenetrack.system.files import cache_dir, replacing
from scenetrack.system.foreign import distinct_names, parsed_json
from scenetrack.tracking.params import settings_of
from scenetrack.tracking.store import connect, get_run, one_line_errors, tracking_uri

logger = logging.getLogger(__name__)

PARENT_TAG = "mlflow.parentRunId"


@dataclass(frozen=True)
class RunInfo:
    """Settings, tags and metrics of one MLflow run.

    Attributes:
        id, name: id of the run, and the name that the UI shows.
        stage: name of the entry point that opened the run.
        params: settings as the stage really used them.
        status: MLflow status, such as ``FINISHED``.
        tags: all tags of the run.
        metrics: last value of each metric.
        parent: id of the parent run, or "".
        classes: class names of the data set, in order; () where none can be read.
    """

    id: str
    name: str
    stage: str
    params: Mapping[str, str]
    status: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    parent: str
    classes: tuple[str, ...]


def resolve_run(run_id: str) -> RunInfo:
    """Return the run with this id.

    Raises:
        ModelError: there is no such run.
    """
    return _info(get_run(connect(), run_id))


def children(run_id: str) -> list[RunInfo]:
    """Return the child runs of a run, oldest first, whatever their status.

    Raises:
        ModelError: there is no such run.
    """
    with one_line_errors(ModelError):
        client = connect()
        experiments = [get_run(client, run_id).info.experiment_id]
        query, order = f"tags.`{PARENT_TAG}` = '{run_id}'", ["attributes.start_time"]
        page = client.search_runs(experiments, query, order_by=order)
        runs = list(page)
        while page.token:
            page = client.search_runs(experiments, query, order_by=order, page_token=page.token)
            runs += page
    return [_info(run) for run in runs]


def run_file(run_id: str, name: str) -> Path:
    """Return the artifact ``name`` of a run as a local file; a remote artifact is copied.

    Raises:
        ModelError: there is no such run, or it has no such file.
    """
    run = get_run(connect(), run_id)
    try:
        path = local_file(f"{run.info.artifact_uri}/{name}")
    except (MlflowException, OSError) as error:
        raise _no_file(run, name, " ".join(str(error).split())[:200]) from error
    if not path.is_file():
        raise _no_file(run, name, "no such file")
    return path


def run_figures(run_id: str) -> dict[str, Path]:
    """Return the PNG files that a run keeps in ``figures/``, by their names without suffix.

    Raises:
        ModelError: there is no such run.
    """
    run = get_run(connect(), run_id)
    with one_line_errors():
        files = connect().list_artifacts(run_id, "figures")
        paths = [local_file(f"{run.info.artifact_uri}/{file.path}") for file in files]
    return {path.stem: path for path in paths if path.suffix == ".png"}


def local_file(uri: str) -> Path:
    """Return the path of a local artifact itself, and of a remote one its copy in the cache."""
    if urlsplit(uri).scheme in ("", "file"):
        return Path(mlflow.artifacts.download_artifacts(uri))
    # The server chooses the address: as a path it might lead out of the cache.
    folder = hashlib.sha256(f"{tracking_uri()} {uri}".encode()).hexdigest()[:32]
    target = cache_dir("models", folder) / PurePosixPath(uri).name
    if target.exists():
        logger.info("reusing %s", target)
        return target
    with replacing(target) as temporary:
        mlflow.artifacts.download_artifacts(
            uri, dst_path=str(temporary.parent), tracking_uri=tracking_uri()
        )
    return target


def _info(run: entities.Run) -> RunInfo:
    settings = settings_of(run)
    presets = {k.removeprefix("preset/"): v for k, v in settings.items() if k.startswith("preset/")}
    params = {k: v for k, v in settings.items() if not k.startswith("preset/")} | presets
    tags = dict(run.data.tags)
    return RunInfo(
        id=run.info.run_id,
        name=run.info.run_name or "",
        stage=tags.get("stage", ""),
        params=params,
        status=run.info.status,
        tags=tags,
        metrics=dict(run.data.metrics),
        parent=tags.get(PARENT_TAG, ""),
        classes=_classes(run),
    )


def _classes(run: entities.Run) -> tuple[str, ...]:
    for dataset_input in run.inputs.dataset_inputs if run.inputs else ():
        try:
            return distinct_names(parsed_json(dataset_input.dataset.profile or "{}")["classes"])
        except (KeyError, TypeError, ValueError):
            continue  # another program's profile, or an edited one: it names no classes
    return ()


def _no_file(run: entities.Run, name: str, reason: str) -> ModelError:
    return ModelError(
        f"run {run.info.run_id} ({run.info.run_name}) must hold the file {name}, but "
        f"{run.info.artifact_uri} does not hold it ({reason}): put it back, or run the stage again"
    )
