"""MLflow runs and child runs as context managers, and the tracker that writes records to them.

Everything goes through ``MlflowClient`` with explicit run ids, so that runs and their children are
right under ``mlflow run``, on the command line and in a notebook with an active run of its own.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import mlflow
import numpy as np
from mlflow import MlflowClient, entities
from mlflow.tracking.context.registry import resolve_tags

from scenetrack.config import StageConfig, format_value
from scenetrack.errors import InputError, ModelError, ScenetrackError, Terminated
from scenetrack.records import (
    Artifact,
    DatasetInput,
    Figure,
    Model,
    Param,
    Record,
    Table,
    Tag,
    Text,
    metrics_among,
)
from scenetrack.system.files import naming
from scenetrack.system.foreign import whole_number
from scenetrack.system.interrupts import allow_signals, defer_signals
from scenetrack.system.patience import hurried
from scenetrack.system.process_identity import process_identity, process_tags
from scenetrack.system.spreadsheets import guarded
from scenetrack.tracking.lookup import PARENT_TAG
from scenetrack.tracking.params import same_setting, settings_of
from scenetrack.tracking.reserve import reserved_room
from scenetrack.tracking.saving import log_model
from scenetrack.tracking.store import (
    connect,
    experiment_named,
    get_run,
    one_line_errors,
    shown_uri,
    store_folder,
)

logger = logging.getLogger(__name__)

INHERITED_TAGS = ("task", "stage", "dataset", "dataset_digest", "demo_data", "experiment")

_TABLES_TAG = "mlflow.loggedArtifacts"
# The name that mlflow gives a run without a name: adjective-noun-number.
_RANDOM_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")
# An MLflow server refuses more in one batch: 1000 entities, of them 100 params and 100 tags.
_METRICS_PER_BATCH, _PARAMS_PER_BATCH, _TAGS_PER_BATCH = 800, 100, 100
_LARGEST_PID = 2**31 - 1
_T = TypeVar("_T")


class MlflowTracker:
    """The ``records.Tracker`` of an MLflow run: the only interpreter of records."""

    def __init__(
        self,
        client: MlflowClient,
        run: entities.Run,
        tags: Mapping[str, str],
    ) -> None:
        self.run_id: str = run.info.run_id
        self.experiment_id: str = run.info.experiment_id
        self._client = client
        self._run = run.info
        self._tags = {name: tags[name] for name in INHERITED_TAGS if name in tags}
        self._given = settings_of(run)
        self._tables: list[dict[str, str]] = []

    def log(self, *records: Record) -> None:
        """Log the records: metrics, params and tags in one batch, files in one upload.

        A param that the run already has with the same value is left alone; one that ``mlflow
        run`` gave and a preset replaced is logged as ``preset/NAME``.

        Raises:
            ScenetrackError: the store cannot be reached or refuses a record.
        """
        with one_line_errors():
            self._log_batch(records)
            self._log_files(records)
            for record in records:
                if isinstance(record, Artifact):
                    self._client.log_artifact(self.run_id, str(record.path), record.folder or None)
                elif isinstance(record, Model):
                    log_model(self._client, self._run, record)
                elif isinstance(record, DatasetInput):
                    self._client.log_inputs(self.run_id, [_dataset_input(record)])

    @contextmanager
    def child(self, name: str, tags: Mapping[str, str] | None = None) -> Iterator[MlflowTracker]:
        """Open a child run, which also carries this run's task, stage and data-set tags.

        The child ends FINISHED; FAILED when the block raises; KILLED when it is interrupted.
        """
        merged = {**self._tags, **(tags or {})}
        with defer_signals():
            run = _create_run(
                self._client, self.experiment_id, name, {PARENT_TAG: self.run_id, **merged}
            )
            with _ending(self._client, run.info.run_id):
                yield MlflowTracker(self._client, run, merged)

    def _log_batch(self, records: Sequence[Record]) -> None:
        now = int(time.time() * 1000)
        metrics = [
            entities.Metric(metric.name, float(metric.value), now, metric.step)
            for metric in metrics_among(records)
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
            _chunks(params, _PARAMS_PER_BATCH),
            _chunks(tags, _TAGS_PER_BATCH),
            fillvalue=(),
        )
        for metric_batch, param_batch, tag_batch in batches:
            self._client.log_batch(
                self.run_id, metrics=metric_batch, params=param_batch, tags=tag_batch
            )

    def _new_param(self, record: Param) -> Iterator[entities.Param]:
        value = format_value(record.value)
        given = self._given.get(record.name)
        if given is None:
            yield entities.Param(record.name, value)
        elif not same_setting(given, value):
            yield from self._new_param(Param(f"preset/{record.name}", record.value))

    def _log_files(self, records: Sequence[Record]) -> None:
        files = [r for r in records if isinstance(r, Figure | Table | Text)]
        if not files:
            return
        with TemporaryDirectory() as folder:
            for record in files:
                path = Path(folder, record.name)
                path.parent.mkdir(parents=True, exist_ok=True)
                with naming(path):
                    _write_file(record, path)
            self._client.log_artifacts(self.run_id, folder)


@contextmanager
def open_run(config: StageConfig, *, name: str, tags: Mapping[str, str]) -> Iterator[MlflowTracker]:
    """Open the run of a stage: the one that ``mlflow run`` made, else a new one.

    Args:
        config: its settings are logged as params, its experiment is used; a run of ``mlflow run``
            stays in the experiment that was chosen there, which a tag then names.
        name: name of the run; one that the user gave with ``mlflow run --run-name`` stays.
        tags: ``task``, ``stage``, ``dataset``, ...; ``status`` and the process are added.

    A new run becomes a child of the run that is active in Python, if that is in the same
    experiment. The run ends FINISHED; FAILED when the block raises; KILLED when it is interrupted.

    Raises:
        InputError: the store, or the run that ``MLFLOW_RUN_ID`` names, does not exist.
        ScenetrackError: the store cannot be reached, read or written.
    """
    with defer_signals():
        tracker = begin_run(config, name=name, tags=tags)
        with _ending(connect(), tracker.run_id):
            yield tracker


def begin_run(config: StageConfig, *, name: str, tags: Mapping[str, str]) -> MlflowTracker:
    """Open a run as ``open_run`` does; the caller ends it."""
    with one_line_errors():
        client = connect()
        inherited_id = os.environ.pop("MLFLOW_RUN_ID", None)
        if inherited_id:
            run = _take_over_run(client, inherited_id, name, tags)
        else:
            experiment_id = experiment_named(client, config.experiment)
            active = mlflow.active_run()
            nested = active is not None and active.info.experiment_id == experiment_id
            parent = {PARENT_TAG: active.info.run_id} if nested else {}
            run = _create_run(client, experiment_id, name, {**parent, **tags})
    try:
        return _begun(client, run, config, tags)
    except BaseException as error:
        _end_failed(client, run.info.run_id, error)
        raise


def _begun(
    client: MlflowClient, run: entities.Run, config: StageConfig, tags: Mapping[str, str]
) -> MlflowTracker:
    _reconcile(client, run.info.experiment_id)
    tracker = MlflowTracker(client, run, tags)
    params = config.as_params()
    chosen = client.get_experiment(run.info.experiment_id).name
    if chosen != config.experiment:
        logger.info("runs are logged to experiment %r, which was chosen for mlflow run", chosen)
        tracker.log(Tag("experiment", chosen))
        # A param that mlflow run logged cannot be corrected any more: the tag has to do.
        params["experiment"] = settings_of(run).get("experiment", chosen)
    tracker.log(*(Param(key, value) for key, value in params.items()))
    return tracker


def run_again(run_id: str) -> None:
    """Mark an ended run as RUNNING in this process; a RUNNING run stays with its own process."""
    with one_line_errors():
        client = connect()
        if client.get_run(run_id).info.status == "RUNNING":
            return
        client.update_run(run_id, status="RUNNING")
        tags = [entities.RunTag(key, value) for key, value in process_tags().items()]
        client.log_batch(run_id, tags=tags)


def reconcile_stale_runs(experiment: str) -> list[str]:
    """Mark runs as FAILED whose status is RUNNING but whose process on this machine has died.

    Returns:
        The ids of the marked runs; runs of other machines are left alone.
    """
    with one_line_errors():
        client = connect()
        found = client.get_experiment_by_name(experiment)
        return _reconcile(client, found.experiment_id) if found else []


def end_resumed(run_id: str, resumed_by: str) -> None:
    """End a killed run as FAILED and tag it with the id of the run that resumed it.

    A run that has ended keeps its status.
    """
    with one_line_errors():
        client = connect()
        client.set_tag(run_id, "resumed_by", resumed_by)
        if client.get_run(run_id).info.status == "RUNNING":
            end_run(client, run_id, "FAILED", f"the process died; resumed by run {resumed_by}")


def _create_run(
    client: MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str]
) -> entities.Run:
    every_tag = resolve_tags({**tags, **process_tags()})
    with one_line_errors():
        return client.create_run(experiment_id, tags=every_tag, run_name=name)


def _take_over_run(
    client: MlflowClient, run_id: str, name: str, tags: Mapping[str, str]
) -> entities.Run:
    try:
        run = get_run(client, run_id)
    except ModelError as error:
        raise InputError(
            f"MLFLOW_RUN_ID must name a run of the store {shown_uri()} that is not deleted: "
            f"unset it. Received: {run_id}"
        ) from error
    unnamed = _RANDOM_NAME.fullmatch(run.info.run_name or "") is not None
    client.update_run(run_id, status="RUNNING", name=name if unnamed else None)
    every_tag = {**tags, **process_tags()}
    client.log_batch(run_id, tags=[entities.RunTag(k, v) for k, v in every_tag.items()])
    return run


@contextmanager
def _ending(client: MlflowClient, run_id: str) -> Iterator[None]:
    try:
        with reserved_room(store_folder()), allow_signals():
            yield
    except BaseException as error:
        _end_failed(client, run_id, error)
        raise
    with one_line_errors():
        end_run(client, run_id, "FINISHED")


def _end_failed(client: MlflowClient, run_id: str, error: BaseException) -> None:
    """End a run as KILLED or FAILED; log a warning where the store does not take it."""
    status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
    try:
        with hurried(), one_line_errors():
            end_run(client, run_id, status, one_line(error))
    except ScenetrackError as refusal:
        logger.warning(
            "run %s stays RUNNING until the next run of its experiment marks it as FAILED: %s",
            run_id,
            refusal,
        )


def end_run(client: MlflowClient, run_id: str, status: str, error: str = "") -> None:
    """End a run with an MLflow status, and with the tag ``error`` if there was one."""
    tags = {"status": "failed", "error": error} if error else {"status": "completed"}
    client.log_batch(run_id, tags=[entities.RunTag(k, v) for k, v in tags.items()])
    client.set_terminated(run_id, status)


def one_line(error: BaseException) -> str:
    """Return the text of the tag ``error`` for the error that ended a run."""
    text = " ".join(str(error).split())[:500]
    if isinstance(error, KeyboardInterrupt):
        return "terminated (SIGTERM)" if isinstance(error, Terminated) else "interrupted (Ctrl-C)"
    if isinstance(error, ScenetrackError) and text:
        return text
    return f"{type(error).__name__}: {text}"


def _reconcile(client: MlflowClient, experiment_id: str) -> list[str]:
    own = process_tags()
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
        try:
            pid = whole_number(tags.get("pid", ""), 1, _LARGEST_PID)
        except ValueError:
            continue  # edited: nothing is known of its process
        if recorded != process_identity(pid):
            logger.info("run %s is marked as failed: its process died", run.info.run_id)
            end_run(client, run.info.run_id, "FAILED", "process died")
            stale.append(run.info.run_id)
    return stale


def _chunks(items: Sequence[_T], size: int) -> list[Sequence[_T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _write_file(record: Figure | Table | Text, path: Path) -> None:
    if isinstance(record, Figure):
        path.write_bytes(record.png)
    elif isinstance(record, Text):
        path.write_text(record.text, encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = [record.columns, *record.rows]
            csv.writer(file).writerows([[guarded(cell) for cell in row] for row in rows])
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
