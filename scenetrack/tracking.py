"""Interprets records into MLflow runs: the only importer of mlflow.

Everything goes through ``MlflowClient`` with explicit run ids, so that runs and their children are
right whether ``mlflow run``, the command line or a notebook with an active run of its own asks.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import mlflow
import numpy as np
from mlflow import MlflowClient, entities
from mlflow.exceptions import MlflowException
from mlflow.models import Model as MlflowModel
from mlflow.models import ModelSignature
from mlflow.tracking.context.registry import resolve_tags
from mlflow.types import Schema
from mlflow.types import TensorSpec as MlflowTensorSpec

from scenetrack.config import StageConfig, format_value
from scenetrack.errors import InputError, ModelError, ScenetrackError, Terminated
from scenetrack.records import (
    Artifact,
    DatasetInput,
    Figure,
    Metric,
    Model,
    Param,
    Record,
    Table,
    Tag,
    TensorSpec,
    Text,
)
from scenetrack.storage import ensure_writable, lock

logger = logging.getLogger(__name__)

PARENT_TAG = "mlflow.parentRunId"
INHERITED_TAGS = ("task", "stage", "dataset", "dataset_digest")

_TABLES_TAG = "mlflow.loggedArtifacts"
_ENTRY_POINT_TAG = "mlflow.project.entryPoint"
# What mlflow names a run that nobody named: adjective-noun-number.
_RANDOM_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")
# An MLflow server refuses more in one batch: 1000 entities, of them 100 params and 100 tags.
_METRICS_PER_BATCH, _OTHERS_PER_BATCH = 800, 100
_T = TypeVar("_T")


@dataclass(frozen=True)
class RunInfo:
    """What is known of a run: id, stage, settings, MLflow status (``FINISHED``, ...) and tags."""

    id: str
    stage: str
    params: Mapping[str, str]
    status: str
    tags: Mapping[str, str]


class MlflowTracker:
    """Logs records to one MLflow run and opens child runs; implements ``records.Tracker``."""

    def __init__(
        self,
        client: MlflowClient,
        run: entities.Run,
        tags: Mapping[str, str],
    ) -> None:
        self.run_id: str = run.info.run_id
        self.experiment_id: str = run.info.experiment_id
        self._client = client
        self._tags = {name: tags[name] for name in INHERITED_TAGS if name in tags}
        self._given = _settings(run)
        self._tables: list[dict[str, str]] = []

    def log(self, *records: Record) -> None:
        """Log the records: metrics, params and tags in one batch, files in one upload.

        A param that the run already has with the same value is left alone; one that ``mlflow
        run`` gave and a preset replaced is logged as ``preset/NAME``.

        Raises:
            ScenetrackError: the store cannot be reached or refuses a record.
        """
        with _one_line_errors():
            self._log_batch(records)
            self._log_files(records)
            for record in records:
                if isinstance(record, Artifact):
                    self._client.log_artifact(self.run_id, str(record.path), record.folder or None)
                elif isinstance(record, Model):
                    self._log_model(record)
                elif isinstance(record, DatasetInput):
                    self._client.log_inputs(self.run_id, [_dataset_input(record)])

    @contextmanager
    def child(self, name: str, tags: Mapping[str, str] | None = None) -> Iterator[MlflowTracker]:
        """Open a child run, which also carries this run's task, stage and data-set tags.

        It ends FINISHED; FAILED when the block raises; KILLED when it is interrupted.
        """
        merged = {**self._tags, **(tags or {})}
        run = _create_run(
            self._client, self.experiment_id, name, {PARENT_TAG: self.run_id, **merged}
        )
        with _ending(self._client, run.info.run_id):
            yield MlflowTracker(self._client, run, merged)

    def _log_batch(self, records: Sequence[Record]) -> None:
        now = int(time.time() * 1000)
        metrics = [
            entities.Metric(r.name, float(r.value), now, r.step)
            for r in records
            if isinstance(r, Metric)
        ]
        params = [p for r in records if isinstance(r, Param) for p in self._new_param(r)]
        tags = [entities.RunTag(r.name, r.value) for r in records if isinstance(r, Tag)]
        self._tags.update({t.key: t.value for t in tags if t.key in INHERITED_TAGS})
        tables = [r for r in records if isinstance(r, Table) and r.name.endswith(".json")]
        if tables:
            self._tables += [{"path": table.name, "type": "table"} for table in tables]
            tags.append(entities.RunTag(_TABLES_TAG, json.dumps(self._tables)))
        batches = zip_longest(
            _chunks(metrics, _METRICS_PER_BATCH),
            _chunks(params, _OTHERS_PER_BATCH),
            _chunks(tags, _OTHERS_PER_BATCH),
            fillvalue=(),
        )
        for some_metrics, some_params, some_tags in batches:
            self._client.log_batch(
                self.run_id, metrics=some_metrics, params=some_params, tags=some_tags
            )

    def _new_param(self, record: Param) -> Iterator[entities.Param]:
        value = format_value(record.value)
        given = self._given.get(record.name)
        if given is None:
            yield entities.Param(record.name, value)
        elif not _same_setting(given, value):
            yield from self._new_param(Param(f"preset/{record.name}", record.value))

    def _log_files(self, records: Sequence[Record]) -> None:
        files = [r for r in records if isinstance(r, Figure | Table | Text)]
        if not files:
            return
        with TemporaryDirectory() as folder:
            for record in files:
                path = Path(folder, record.name)
                path.parent.mkdir(parents=True, exist_ok=True)
                _write_file(record, path)
            self._client.log_artifacts(self.run_id, folder)

    def _log_model(self, model: Model) -> None:
        logged = self._client.create_logged_model(
            self.experiment_id, name=model.name, source_run_id=self.run_id
        )
        description = MlflowModel(
            artifact_path=logged.artifact_location, run_id=self.run_id, model_id=logged.model_id
        )
        try:
            with TemporaryDirectory() as scratch:
                folder = Path(scratch, "model")
                _save_model(model, folder, description)
                self._client.log_model_artifacts(logged.model_id, str(folder))
        except BaseException:
            self._client.finalize_logged_model(logged.model_id, "FAILED")
            raise
        self._client.finalize_logged_model(logged.model_id, "READY")
        output = entities.LoggedModelOutput(logged.model_id, step=0)
        self._client.log_outputs(self.run_id, [output])


@contextmanager
def open_run(config: StageConfig, *, name: str, tags: Mapping[str, str]) -> Iterator[MlflowTracker]:
    """Open the run of a stage: the one that ``mlflow run`` made, else a new one.

    Args:
        config: its settings are logged as params, its experiment is used.
        name: name of the run; one that the user gave with ``mlflow run --run-name`` stays.
        tags: ``task``, ``stage``, ``dataset``, ...; ``status`` and the process are added.

    A new run becomes a child of the run that is active in Python, if that is in the same
    experiment. The run ends FINISHED; FAILED when the block raises; KILLED when it is interrupted.

    Raises:
        ScenetrackError: the store cannot be reached, read or written.
    """
    with _one_line_errors():
        client = _connect()
        inherited_id = os.environ.pop("MLFLOW_RUN_ID", None)
        if inherited_id:
            run = _take_over_run(client, inherited_id, name, tags)
        else:
            experiment_id = _experiment_id(client, config.experiment)
            active = mlflow.active_run()
            nested = active is not None and active.info.experiment_id == experiment_id
            parent = {PARENT_TAG: active.info.run_id} if nested else {}
            run = _create_run(client, experiment_id, name, {**parent, **tags})
    with _ending(client, run.info.run_id):
        _reconcile(client, run.info.experiment_id)
        tracker = MlflowTracker(client, run, tags)
        tracker.log(*(Param(key, value) for key, value in config.as_params().items()))
        yield tracker


def reconcile_stale_runs(experiment: str) -> list[str]:
    """Mark runs as FAILED that say RUNNING but whose process on this machine has died.

    Returns:
        The ids of the runs that were marked; runs of other machines are left alone.
    """
    with _one_line_errors():
        client = _connect()
        found = client.get_experiment_by_name(experiment)
        return _reconcile(client, found.experiment_id) if found else []


def resolve_run(run_id: str) -> RunInfo:
    """The run with this id, its params as the stage that logged them really used them.

    Raises:
        ModelError: there is no such run.
    """
    run = _get_run(_connect(), run_id)
    settings = _settings(run)
    presets = {k.removeprefix("preset/"): v for k, v in settings.items() if "preset/" in k}
    params = {k: v for k, v in settings.items() if "preset/" not in k} | presets
    tags = dict(run.data.tags)
    return RunInfo(run_id, tags.get("stage", ""), params, run.info.status, tags)


def end_resumed(run_id: str, resumed_by: str) -> None:
    """Close a killed run that the run ``resumed_by`` has gone on with: FAILED, with that tag.

    A run that has ended keeps its status.
    """
    with _one_line_errors():
        client = _connect()
        client.set_tag(run_id, "resumed_by", resumed_by)
        if client.get_run(run_id).info.status == "RUNNING":
            _end(client, run_id, "FAILED", f"the process died; resumed by run {resumed_by}")


def resolve_model(model: str, experiment: str) -> Path:
    """The local ``.keras`` file that ``model`` names; nothing is loaded or executed.

    Args:
        model: a ``.keras`` file, a run id (its newest Keras model, or its children's),
            ``runs:/ID/NAME``, ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``; empty for the
            newest Keras model of a finished run of ``experiment``.

    Raises:
        ModelError: it does not exist, or is no Keras model.
    """
    if model.endswith(".keras") or Path(model).is_file():
        return _checked_file(Path(model).expanduser())
    with _one_line_errors(ModelError):
        client = _connect()
        if not model:
            candidates = _newest_models(client, experiment)
            named = f"no finished run of experiment {experiment!r} has one"
        elif model.startswith("models:/"):
            candidates = iter([_registered_model_id(client, model)])
            named = f"{model} is another kind of model"
        else:
            run_id, _, name = model.removeprefix("runs:/").partition("/")
            candidates = _models_of_run(client, run_id, name)
            named = f"run {run_id} has none" + (f" named {name!r}" if name else "")
        for model_id in candidates:
            for item in client.list_logged_model_artifacts(model_id, "data"):
                if item.path.endswith(".keras"):
                    location = client.get_logged_model(model_id).artifact_location
                    return _downloaded(f"{location}/{item.path}")
    raise ModelError(
        f"a Keras model is required, but {named}: train one first (scenetrack train_mlp), or name "
        "a .keras file or another run"
    )


def open_ui(host: str = "127.0.0.1", port: int = 5000) -> None:
    """Replace this process by the MLflow UI of the store in use, with one light worker.

    Raises:
        InputError: the port is taken or the store is a server, which has a page of its own.
    """
    uri = tracking_uri()
    if uri.startswith("http"):
        raise InputError(f"the runs are on a tracking server with a page of its own: open {uri}")
    _check_port(host, port)
    with _one_line_errors():
        _connect()
    # The job workers start a dozen processes of 3 GB in all, for features we do not use.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    words = [sys.executable, "-m", "mlflow", "ui", "--workers", "1", "--host", host]
    words += ["--port", str(port), "--backend-store-uri", uri]
    logger.info("opening http://%s:%d for %s", host, port, uri)
    sys.stdout.flush()
    os.execv(sys.executable, words)


def tracking_uri() -> str:
    """``MLFLOW_TRACKING_URI``, else the SQLite file ``mlflow.db`` of the working folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').absolute()}"


def _connect() -> MlflowClient:
    return _client(tracking_uri())


@cache
def _client(uri: str) -> MlflowClient:
    """A client whose store is initialised; two processes doing that at once would corrupt it."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    for chatter in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(chatter).setLevel(logging.WARNING)
    with _one_line_errors(), _initialising(uri):
        # The constructor already makes the store's tables.
        client = MlflowClient(uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    return client


def _initialising(uri: str) -> AbstractContextManager[object]:
    """A lock between processes where the store is an SQLite file, otherwise none."""
    if not uri.startswith("sqlite:///"):
        return nullcontext()
    database = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    ensure_writable(database.absolute().parent)
    return lock(database)


@contextmanager
def _one_line_errors(kind: type[ScenetrackError] = ScenetrackError) -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        text = " ".join(str(error).split())
        if "Max retries" in text or "Connection" in text:
            raise ScenetrackError(
                f"the MLflow server {tracking_uri()} does not answer: start it, or change or "
                "unset MLFLOW_TRACKING_URI"
            ) from error
        raise kind(f"MLflow refused: {text[:400]} (store {tracking_uri()})") from error


def _experiment_id(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:
            # Another process may have made it in the meantime.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise InputError(
            f"experiment {name!r} is deleted: choose another name with --experiment, or restore "
            f"it with: mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    return str(found.experiment_id)


def _create_run(
    client: MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str]
) -> entities.Run:
    every_tag = resolve_tags({**tags, **_process_tags()})
    with _one_line_errors():
        return client.create_run(experiment_id, tags=every_tag, run_name=name)


def _take_over_run(
    client: MlflowClient, run_id: str, name: str, tags: Mapping[str, str]
) -> entities.Run:
    run = client.get_run(run_id)
    unnamed = _RANDOM_NAME.fullmatch(run.info.run_name or "") is not None
    client.update_run(run_id, status="RUNNING", name=name if unnamed else None)
    every_tag = {**tags, **_process_tags()}
    client.log_batch(run_id, tags=[entities.RunTag(k, v) for k, v in every_tag.items()])
    return run


@contextmanager
def _ending(client: MlflowClient, run_id: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        try:
            _end(client, run_id, "KILLED" if interrupted else "FAILED", _one_line(error))
        except MlflowException as refusal:
            logger.warning("run %s could not be ended: %s", run_id, _one_line(refusal))
        raise
    with _one_line_errors():
        _end(client, run_id, "FINISHED")


def _end(client: MlflowClient, run_id: str, status: str, error: str = "") -> None:
    tags = {"status": "failed", "error": error} if error else {"status": "completed"}
    client.log_batch(run_id, tags=[entities.RunTag(k, v) for k, v in tags.items()])
    client.set_terminated(run_id, status)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:500]
    if isinstance(error, KeyboardInterrupt):
        return "terminated (SIGTERM)" if isinstance(error, Terminated) else "interrupted (Ctrl-C)"
    if isinstance(error, ScenetrackError) and text:
        return text
    return f"{type(error).__name__}: {text}"


def _process_tags() -> dict[str, str]:
    pid = os.getpid()
    return {
        "status": "started",
        "host": socket.gethostname(),
        "pid": str(pid),
        "process": _process_identity(pid) or "",
    }


def _process_identity(pid: int) -> str | None:
    """What tells this process from a later one with its number; None if there is no process.

    On Linux the process-number space (containers have their own) and the start time.
    """
    try:
        if sys.platform == "linux":
            # The second field is the program's name in brackets and may hold spaces.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            started = None if fields[0] == "Z" else fields[19]
            return started and f"{os.readlink('/proc/self/ns/pid')} {started}"
        words = ["ps", "-o", "lstart=", "-p", str(pid)]
        return subprocess.run(words, capture_output=True, text=True).stdout.strip() or None
    except OSError:
        return None


def _reconcile(client: MlflowClient, experiment_id: str) -> list[str]:
    own = _process_tags()
    if not own["process"]:
        return []
    space = own["process"].rpartition("]")[0]
    query = f"attributes.status = 'RUNNING' and tags.host = '{own['host']}'"
    stale = []
    for run in client.search_runs([experiment_id], query):
        tags = run.data.tags
        recorded = tags.get("process", "")
        if not recorded or recorded.rpartition("]")[0] != space:
            continue
        if recorded != _process_identity(int(tags["pid"])):
            logger.info("run %s was left running by a process that died", run.info.run_id)
            _end(client, run.info.run_id, "FAILED", "process died")
            stale.append(run.info.run_id)
    return stale


def _settings(run: entities.Run) -> dict[str, str]:
    """The run's params; ``mlflow run`` logs them quoted for the shell."""
    params = dict(run.data.params)
    if _ENTRY_POINT_TAG not in run.data.tags:
        return params
    return {name: _unquoted(value) for name, value in params.items()}


def _unquoted(text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError:
        return text
    return words[0] if len(words) == 1 else text if words else ""


def _same_setting(a: str, b: str) -> bool:
    """Whether two spellings mean the same value: ``.5`` and ``0.5``, ``True`` and ``true``."""
    first, second = (
        [] if text in ("", "none") else [word.strip() for word in text.split(",")]
        for text in (a, b)
    )
    return len(first) == len(second) and all(map(_same_word, first, second))


def _same_word(a: str, b: str) -> bool:
    if {a.lower(), b.lower()} <= {"true", "false"}:
        return a.lower() == b.lower()
    try:
        return float(a) == float(b)
    except ValueError:
        return a == b


def _chunks(items: Sequence[_T], size: int) -> list[Sequence[_T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _write_file(record: Figure | Table | Text, path: Path) -> None:
    if isinstance(record, Figure):
        path.write_bytes(record.png)
    elif isinstance(record, Text):
        path.write_text(record.text, encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([record.columns, *record.rows])
    else:
        # The form that mlflow.load_table and the UI's table viewer read.
        content = {"columns": list(record.columns), "data": [list(row) for row in record.rows]}
        path.write_text(json.dumps(content, default=_plain_number), encoding="utf-8")


def _plain_number(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a table cell must be a text, number or None. Received: {value!r}")


def _dataset_input(record: DatasetInput) -> entities.DatasetInput:
    dataset = entities.Dataset(
        # MLflow keeps one input of a run for each name and digest: train and test need their own.
        name=f"{record.name}/{record.context}",
        digest=record.digest,
        source_type="local",
        source=json.dumps({"uri": record.source}),
        profile=json.dumps({"images": record.images, "classes": list(record.classes)}),
    )
    return entities.DatasetInput(
        dataset, [entities.InputTag("mlflow.data.context", record.context)]
    )


@dataclass(frozen=True)
class _KerasFile:
    """Stands for a model where mlflow only saves it: the very file that was verified is kept."""

    path: Path

    def save(self, target: str) -> None:
        shutil.copyfile(self.path, target)


def _save_model(model: Model, folder: Path, description: MlflowModel) -> None:
    with warnings.catch_warnings():
        # The first import warns of type hints of mlflow's own.
        warnings.simplefilter("ignore", UserWarning)
        import mlflow.pyfunc
    if model.path.suffix == ".onnx":
        import mlflow.onnx
        import onnx

        mlflow.onnx.save_model(
            onnx.load(model.path),
            folder,
            mlflow_model=description,
            signature=ModelSignature(_schema(model.inputs), _schema(model.outputs)),
            pip_requirements=_requirements(
                "onnx", "onnxruntime", "onnxruntime-gpu", "numpy", "mlflow"
            ),
            metadata=dict(model.metadata),
            save_as_external_data=False,
        )
        return
    import mlflow.keras

    unnamed = len(model.inputs) == 1  # so that a served model takes a plain array
    mlflow.keras.save_model(
        _KerasFile(model.path),
        str(folder),
        mlflow_model=description,
        signature=ModelSignature(
            _schema(model.inputs, named=not unnamed), _schema(model.outputs, named=not unnamed)
        ),
        pip_requirements=_requirements("keras", "tensorflow", "numpy", "mlflow"),
        metadata=dict(model.metadata),
    )


def _schema(specs: Sequence[TensorSpec], *, named: bool = True) -> Schema:
    return Schema(
        [
            MlflowTensorSpec(np.dtype(spec.dtype), spec.shape, spec.name if named else None)
            for spec in specs
        ]
    )


def _requirements(*distributions: str) -> list[str]:
    pins = []
    for name in distributions:
        try:
            pins.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue
    return pins


def _downloaded(uri: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(uri, tracking_uri=tracking_uri()))


def _checked_file(path: Path) -> Path:
    if path.suffix != ".keras":
        raise ModelError(f"a .keras file or a run id is required. Received: {path}")
    if not path.is_file():
        raise ModelError(f"model file {path} does not exist: check the path")
    return path


def _get_run(client: MlflowClient, run_id: str) -> entities.Run:
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            with _one_line_errors():
                raise
        raise ModelError(
            f"a run id of {tracking_uri()} or a .keras file is required, but there is no run "
            f"{run_id!r}: copy the id from the MLflow UI (scenetrack ui)"
        ) from error


def _newest_models(client: MlflowClient, experiment: str) -> Iterator[str]:
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return
    for model in client.search_logged_models([found.experiment_id], order_by=_NEWEST_FIRST):
        if _get_run(client, model.source_run_id).info.status == "FINISHED":
            yield model.model_id


_NEWEST_FIRST: list[dict[str, Any]] = [{"field_name": "creation_timestamp", "ascending": False}]


def _models_of_run(client: MlflowClient, run_id: str, name: str) -> Iterator[str]:
    """The run's models, then its children's, which belong to the same story."""
    experiments = [_get_run(client, run_id).info.experiment_id]
    children = client.search_runs(experiments, f"tags.`{PARENT_TAG}` = '{run_id}'")
    for owner in [run_id, *(child.info.run_id for child in children)]:
        query = f"source_run_id = '{owner}'"
        for model in client.search_logged_models(experiments, query, order_by=_NEWEST_FIRST):
            if name in ("", model.name):
                yield model.model_id


def _registered_model_id(client: MlflowClient, model: str) -> str:
    name = PurePosixPath(model.removeprefix("models:/"))
    if len(name.parts) == 2:
        found = client.get_model_version(name.parts[0], name.parts[1])
    elif "@" in name.name:
        found = client.get_model_version_by_alias(*name.name.split("@", 1))
    else:
        return str(name)
    return str(found.model_id or PurePosixPath(found.source).name)


def _check_port(host: str, port: int) -> None:
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise InputError(
            f"a free port is required, but {host}:{port} cannot be used ({error.strerror}): "
            "choose another with --port"
        ) from error
