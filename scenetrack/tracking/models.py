"""Lookup of model files in MLflow; nothing is loaded or executed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mlflow import MlflowClient, entities
from mlflow.entities import LoggedModel, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion

from scenetrack.errors import ModelError
from scenetrack.tracking.lookup import PARENT_TAG, local_file
from scenetrack.tracking.store import connect, get_run, one_line_errors, shortened

logger = logging.getLogger(__name__)

_NEWEST_FIRST: list[dict[str, Any]] = [{"field_name": "creation_timestamp", "ascending": False}]


def resolve_model(model: str, experiment: str) -> Path:
    """Return the local ``.keras`` file that ``model`` names; nothing is loaded or executed.

    Args:
        model: a ``.keras`` file, a run id (its newest Keras model, or its children's),
            ``runs:/ID/NAME``, ``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` (a number,
            ``latest`` or a stage), ``models:/ID`` or ``file:///PATH``; empty for the newest Keras
            model of a finished run of ``experiment``, else of any experiment.

    Raises:
        ModelError: it does not exist, or is no Keras model.
    """
    path = _expanded(model)
    if model.endswith(".keras") or _is_file(path):
        return _checked_file(path)
    missing = ""
    with one_line_errors(ModelError):
        client = connect()
        for found in _candidates(client, model, experiment):
            for item in client.list_logged_model_artifacts(found.model_id, "data"):
                if item.path.endswith(".keras"):
                    if not model:
                        _log_other_experiment(client, found, experiment)
                    return local_file(f"{found.artifact_location}/{item.path}")
            if not client.list_logged_model_artifacts(found.model_id):
                missing = missing or found.artifact_location
    if missing:
        raise ModelError(
            f"a Keras model is required, but its files at {missing} are missing: put them back, or "
            "name a .keras file or another run"
        )
    raise ModelError(
        f"a Keras model is required, but {_lack(model, experiment)}: train one first (scenetrack "
        "train_mlp), or name a .keras file or another run"
    )


def resolve_onnx(run_id: str, name: str) -> Path:
    """Return the local file of the newest ONNX model called ``name`` that a run logged.

    Raises:
        ModelError: there is no such run, it has no such model, or its file is missing.
    """
    file = find_onnx(run_id, name)
    if file is None:
        raise ModelError(
            f"run {run_id} must hold the ONNX model {name!r}, but it has none: run the stage "
            "again, or name another run"
        )
    return file


def find_onnx(run_id: str, name: str) -> Path | None:
    """Return what ``resolve_onnx`` returns, or None where the run logged no such model.

    Raises:
        ModelError: there is no such run, or its file is missing.
    """
    client = connect()
    run = get_run(client, run_id)
    with one_line_errors(ModelError):
        found = newest_model(client, run, name)
        if found is None:
            return None
        file = _onnx_file(client, found)
    if file is None:
        raise ModelError(
            f"the ONNX model {name!r} of run {run_id} is required, but its files at "
            f"{found.artifact_location} are missing: put them back, or run the stage again"
        )
    return file


def registered_onnx(model: str) -> Path | None:
    """Return the ONNX file of ``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or ``models:/ID``.

    Returns:
        The local file, or None where the model is of another kind.

    Raises:
        ModelError: there is no such model.
    """
    with one_line_errors(ModelError):
        client = connect()
        return _onnx_file(client, client.get_logged_model(_registered_model_id(client, model)))


def newest_model(client: MlflowClient, run: entities.Run, name: str) -> LoggedModel | None:
    """Return the newest completely logged model of ``run`` called ``name``, or None."""
    query = f"source_run_id = '{run.info.run_id}'"
    for found in _search_models(client, [run.info.experiment_id], query):
        if found.name == name and found.status == LoggedModelStatus.READY:
            return found
    return None


def _onnx_file(client: MlflowClient, model: LoggedModel) -> Path | None:
    for item in client.list_logged_model_artifacts(model.model_id):
        if PurePosixPath(item.path).suffix == ".onnx":
            return local_file(f"{model.artifact_location}/{item.path}")
    return None


def _expanded(model: str) -> Path:
    if model.startswith("file:"):
        return Path(url2pathname(urlsplit(model).path))
    try:
        return Path(model).expanduser()
    except RuntimeError:  # The path begins with ~ but names no user.
        return Path(model)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # The name is longer than file systems allow.
        return False


def _checked_file(path: Path) -> Path:
    if path.suffix != ".keras":
        raise ModelError(f"a .keras file or a run id is required. Received: {path}")
    if not _is_file(path):
        raise ModelError(f"model file {shortened(str(path))} does not exist: check the path")
    return path


def _candidates(client: MlflowClient, model: str, experiment: str) -> Iterator[LoggedModel]:
    if not model:
        return _newest_models(client, experiment)
    if model.startswith("models:/"):
        return iter([client.get_logged_model(_registered_model_id(client, model))])
    run_id, _, name = model.removeprefix("runs:/").partition("/")
    return _models_of_run(client, run_id, name)


def _lack(model: str, experiment: str) -> str:
    if not model:
        return f"no finished run of experiment {experiment!r} has one, nor has any other"
    if model.startswith("models:/"):
        return f"{model} is another kind of model"
    run_id, _, name = model.removeprefix("runs:/").partition("/")
    return f"run {run_id} has none" + (f" named {name!r}" if name else "")


def _newest_models(client: MlflowClient, experiment: str) -> Iterator[LoggedModel]:
    """Yield the models of finished runs of ``experiment``, then of all other experiments."""
    named: list[str] = []
    unnamed: list[str] = []
    for item in client.search_experiments():
        (named if item.name == experiment else unnamed).append(item.experiment_id)
    for experiments in (named, unnamed):
        for model in _search_models(client, experiments):
            if _is_of_finished_run(client, model):
                yield model


def _is_of_finished_run(client: MlflowClient, model: LoggedModel) -> bool:
    try:
        run = get_run(client, model.source_run_id or "")
    except ModelError:  # Its run is deleted, or the model was logged outside of any run.
        return False
    return bool(run.info.status == "FINISHED")


def _log_other_experiment(client: MlflowClient, model: LoggedModel, experiment: str) -> None:
    run = get_run(client, model.source_run_id)
    name = client.get_experiment(run.info.experiment_id).name
    if name != experiment:
        logger.info(
            "experiment %r has no Keras model: using the newest, of run %s (%s) of experiment %r",
            experiment,
            run.info.run_id,
            run.info.run_name,
            name,
        )


def _models_of_run(client: MlflowClient, run_id: str, name: str) -> Iterator[LoggedModel]:
    """Yield the models of the run, then those of its child runs."""
    experiments = [get_run(client, run_id).info.experiment_id]
    children = client.search_runs(experiments, f"tags.`{PARENT_TAG}` = '{run_id}'")
    for owner in [run_id, *(child.info.run_id for child in children)]:
        for model in _search_models(client, experiments, f"source_run_id = '{owner}'"):
            if name in ("", model.name):
                yield model


def _search_models(
    client: MlflowClient, experiments: list[str], query: str | None = None
) -> Iterator[LoggedModel]:
    token = None
    while experiments:
        page = client.search_logged_models(
            experiments, query, order_by=_NEWEST_FIRST, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _registered_model_id(client: MlflowClient, model: str) -> str:
    name = PurePosixPath(model.removeprefix("models:/"))
    if len(name.parts) == 2:
        found = _version(client, *name.parts)
    elif "@" in name.name:
        found = client.get_model_version_by_alias(*name.name.split("@", 1))
    else:
        return str(name)
    return str(found.model_id or PurePosixPath(found.source).name)


def _version(client: MlflowClient, name: str, wanted: str) -> ModelVersion:
    """Return a version by number, the newest as ``latest``, or the newest of a stage."""
    if wanted.isdecimal():
        return client.get_model_version(name, wanted)
    if not set("'\"`").isdisjoint(name):
        raise ModelError(f"a registered model's name without quotes is required. Received: {name}")
    found = [
        version
        for version in client.search_model_versions(f"name = '{name}'")
        if wanted.lower() in ("latest", str(version.current_stage).lower())
    ]
    if not found:
        raise ModelError(
            f"registered model {name!r} has no version {wanted!r}: name a number, an alias "
            f"(models:/{name}@ALIAS) or latest"
        )
    return max(found, key=lambda version: int(version.version))
