"""The MLflow store in use: found, initialised once, its refusals told in one line."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path

from mlflow import MlflowClient, entities
from mlflow.exceptions import MlflowException

from scenetrack.errors import InputError, ModelError, ScenetrackError
from scenetrack.storage import ensure_writable, lock

logger = logging.getLogger(__name__)


def tracking_uri() -> str:
    """``MLFLOW_TRACKING_URI``, else the SQLite file ``mlflow.db`` of the working folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').absolute()}"


def open_ui(host: str = "127.0.0.1", port: int = 5000) -> None:
    """Replace this process by the MLflow UI of the store in use, with one light worker.

    Raises:
        InputError: the port is taken or the store is a server, which has a page of its own.
    """
    uri = tracking_uri()
    if uri.startswith("http"):
        raise InputError(f"the runs are on a tracking server with a page of its own: open {uri}")
    _check_port(host, port)
    with one_line_errors():
        connect()
    # The job workers start a dozen processes of 3 GB in all, for features we do not use.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    words = [sys.executable, "-m", "mlflow", "ui", "--workers", "1", "--host", host]
    words += ["--port", str(port), "--backend-store-uri", uri]
    logger.info("opening http://%s:%d for %s", host, port, uri)
    sys.stdout.flush()
    os.execv(sys.executable, words)


def connect() -> MlflowClient:
    """A client of the store in use, which is made and ready.

    Raises:
        ScenetrackError: it cannot be reached, read or written.
    """
    return _client(tracking_uri())


def experiment_named(client: MlflowClient, name: str) -> str:
    """The id of the experiment, which is made where there is none.

    Raises:
        InputError: it is deleted.
    """
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


def get_run(client: MlflowClient, run_id: str) -> entities.Run:
    """The run with this id.

    Raises:
        ModelError: there is no such run.
    """
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            with one_line_errors():
                raise
        raise ModelError(
            f"a run id of {tracking_uri()} or a .keras file is required, but there is no run "
            f"{run_id!r}: copy the id from the MLflow UI (scenetrack ui)"
        ) from error


@contextmanager
def one_line_errors(kind: type[ScenetrackError] = ScenetrackError) -> Iterator[None]:
    """Raise MLflow's refusals inside the block as ``kind``, in one line naming the store."""
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


@cache
def _client(uri: str) -> MlflowClient:
    """A client whose store is initialised; two processes doing that at once would corrupt it."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    if not sys.stderr.isatty():
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for chatter in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(chatter).setLevel(logging.WARNING)
    with one_line_errors(), _initialising(uri):
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
