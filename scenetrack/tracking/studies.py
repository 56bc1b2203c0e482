"""MLflow runs of studies, which several processes share and resume, and of their trials."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException

from scenetrack.config import TuneConfig
from scenetrack.errors import ModelError, ScenetrackError
from scenetrack.records import Tag
from scenetrack.system.patience import hurried
from scenetrack.system.process_identity import process_tags
from scenetrack.tracking.runs import MlflowTracker, end_run, one_line, open_run
from scenetrack.tracking.store import connect, get_run, one_line_errors

logger = logging.getLogger(__name__)


def join_run(run_id: str) -> MlflowTracker:
    """Return a tracker of a run that another process opened and will end."""
    with one_line_errors():
        client = connect()
        run = get_run(client, run_id)
        return MlflowTracker(client, run, run.data.tags)


def is_known(run_id: str) -> bool:
    """Return whether the store in use has the run."""
    try:
        with one_line_errors():
            get_run(connect(), run_id)
    except ModelError:
        return False
    return True


@contextmanager
def joined_by(config: TuneConfig, run_id: str, name: str) -> Iterator[None]:
    """Tag and end the extra run that ``mlflow run`` made for a study that has a run already."""
    if "MLFLOW_RUN_ID" not in os.environ:
        yield
        return
    with open_run(config, name=name, tags={"stage": "tune", "task": "tune"}) as own:
        own.log(Tag("study_run", run_id))
        yield


def fail_run(run_id: str, reason: str) -> None:
    """End a trial's run as FAILED, unless it does not exist or is FAILED or KILLED already.

    Raises:
        StoreError: the store does not answer.
    """
    client = connect()
    with one_line_errors():
        try:
            status = client.get_run(run_id).info.status
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return
            raise
        if status not in ("FAILED", "KILLED"):
            end_run(client, run_id, "FAILED", reason)


def finish_run(run_id: str) -> None:
    """End the run of a finished study as FINISHED."""
    with one_line_errors():
        client = connect()
        if "error" in client.get_run(run_id).data.tags:  # of an earlier process
            client.delete_tag(run_id, "error")
        end_run(client, run_id, "FINISHED")


def stop_run(run_id: str, error: BaseException) -> None:
    """End the run of a study as KILLED or FAILED; log a warning if the store cannot be reached.

    A run that belongs to another process is left alone.
    """
    status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
    try:
        with hurried(), one_line_errors():
            client = connect()
            tags, own = client.get_run(run_id).data.tags, process_tags()
            if (tags.get("host"), tags.get("pid")) == (own["host"], own["pid"]):
                end_run(client, run_id, status, one_line(error))
    except ScenetrackError as refusal:
        logger.warning("run %s cannot be ended: %s", run_id, refusal)
