"""The MLflow store in use: client, one-time initialisation, errors in one line."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import socket
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from mlflow import MlflowClient, entities
from mlflow.exceptions import MlflowException
from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from scenetrack.errors import InputError, ModelError, ScenetrackError, StoreError, WriteError
from scenetrack.system.databases import driver_message
from scenetrack.system.files import (
    cache_dir,
    ensure_writable,
    is_disk_error,
    lock,
    printable,
    replacing,
)
from scenetrack.system.interrupts import defer_signals
from scenetrack.tracking.waiting import PatientClient, wait_until_readable

logger = logging.getLogger(__name__)

# https://www.sqlite.org/fileformat.html#the_database_header
_SQLITE_HEADER = b"SQLite format 3\0"
# Without what means something in an address, and without bytes that are not UTF-8.
_PLAIN_PATH = re.compile(r"[^?#%;\ud800-\udfff]*")
# Of SQLite, PostgreSQL and MySQL.
_FULL = re.compile(r"disk is full|No space left|disk full|is full", re.IGNORECASE)
_DRIVERS = {
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
}


def tracking_uri() -> str:
    """Return ``MLFLOW_TRACKING_URI``, else the SQLite file ``mlflow.db`` of the working folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _sqlite_uri(Path("mlflow.db").absolute())


def _sqlite_uri(path: Path) -> str:
    """Return the address of an SQLite file.

    Where its folder's name has characters that mean something in an address, the address goes
    through a link: MLflow does not read quoted ones.

    Raises:
        InputError: the cache, which would hold the link, has such a name too.
    """
    if not _PLAIN_PATH.fullmatch(str(path)):
        path = _plain_name(path.parent) / path.name
    return f"sqlite:///{path}"


def _plain_name(folder: Path) -> Path:
    """Return a link to ``folder`` whose own path is plain."""
    place = cache_dir("folders") / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    if not _PLAIN_PATH.fullmatch(str(place)):
        raise InputError(
            f"a folder without ? # % ; in its name is required for runs. Received: "
            f"{printable(folder)}; work in another one, or set MLFLOW_TRACKING_URI"
        )
    if not place.is_symlink() or os.readlink(place) != str(folder):
        with replacing(place) as temporary:
            temporary.symlink_to(folder, target_is_directory=True)
    return place


def shown_uri() -> str:
    """Return the tracking URI without its password, for messages."""
    return re.sub(r"(//[^:/@]*):[^@/]*@", r"\1:***@", tracking_uri())


def store_folder() -> Path | None:
    """Return the folder of the store in use where it is an SQLite file; None for a server."""
    database = _sqlite_file(tracking_uri())
    return None if database is None else database.parent


def open_ui(host: str = "127.0.0.1", port: int = 5000) -> None:
    """Replace this process by the MLflow UI of the store in use, with one light worker.

    Raises:
        InputError: the port is taken, or the store is a server, which has its own UI.
    """
    uri = tracking_uri()
    if uri.startswith("http"):
        raise InputError(f"the tracking server has its own UI: open {shown_uri()}")
    _check_port(host, port)
    with one_line_errors():
        connect()
    # The job workers start a dozen processes of 3 GB in all, for features we do not use.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    words = [sys.executable, "-m", "mlflow", "ui", "--workers", "1", "--host", host]
    words += ["--port", str(port), "--backend-store-uri", uri]
    if host != "localhost" and not host.startswith("127."):
        logger.warning(
            "the server at %s:%d is open to the network without a password: whoever reaches it "
            "can read and change the runs",
            host,
            port,
        )
    logger.info("opening http://%s:%d for %s", host, port, shown_uri())
    sys.stdout.flush()
    os.execv(sys.executable, words)


def connect() -> MlflowClient:
    """Return a client of the store in use, which is made where it does not exist.

    Raises:
        InputError: the URI names no store, or its database driver is missing.
        ScenetrackError: the store cannot be reached, read or written.
    """
    return _client(tracking_uri())


def experiment_named(client: MlflowClient, name: str) -> str:
    """Return the id of the experiment, which is made where it does not exist.

    Raises:
        InputError: the experiment is deleted.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, _artifact_location()))
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


def _artifact_location() -> str | None:
    """Return where the artifacts of a new experiment go; None for MLflow's own choice.

    MLflow takes the working folder for an address, and so ``%20`` in its name for a space.

    Raises:
        InputError: the cache, which would hold a link to the folder, has such a name too.
    """
    folder = Path(DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH).absolute()
    if os.environ.get("MLFLOW_TRACKING_URI") or _PLAIN_PATH.fullmatch(str(folder)):
        return None
    return (_plain_name(folder.parent) / folder.name / uuid.uuid4().hex).as_uri()


def get_run(client: MlflowClient, run_id: str) -> entities.Run:
    """Return the run with this id.

    Raises:
        ModelError: there is no such run, or it is deleted.
    """
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            with one_line_errors():
                raise
        raise ModelError(
            f"a run id of {shown_uri()} or a .keras file is required, but there is no run "
            f"{shortened(run_id)!r}: copy the id from the MLflow UI (scenetrack ui)"
        ) from error
    if run.info.lifecycle_stage == "deleted":
        raise ModelError(
            f"run {run_id} is deleted: name another one, or restore it with: "
            f"mlflow runs restore --run-id {run_id}"
        )
    return run


def shortened(text: str) -> str:
    """Return ``text`` with its middle cut out where it is too long for a one-line message."""
    return text if len(text) <= 100 else f"{text[:60]}...{text[-20:]}"


@contextmanager
def one_line_errors(kind: type[ScenetrackError] = StoreError) -> Iterator[None]:
    """Raise MLflow's errors inside the block as ``kind``, with a one-line message naming the store.

    Signals are deferred in the block: an interrupted database would raise errors of its own.
    """
    try:
        with defer_signals():
            yield
    except ScenetrackError:
        raise
    except OSError as error:
        raise _no_room(error) from error
    except MlflowException as error:
        interrupt = _interrupt_behind(error)
        if interrupt is not None:
            raise interrupt from None
        text = driver_message(error)
        if _FULL.search(text):
            raise StoreError(
                f"the disk of the MLflow store {shown_uri()} is full ({text[:100]}): free some "
                "room there, then start the same command again"
            ) from error
        if "Max retries" in text or "Connection" in text:
            raise StoreError(
                f"the MLflow server {shown_uri()} does not answer: start it, or change or "
                "unset MLFLOW_TRACKING_URI"
            ) from error
        raise kind(f"MLflow refused: {text[:400]} (store {shown_uri()})") from error


def _no_room(error: OSError) -> OSError:
    """Return the error of files that MLflow writes, with the name of the first one of them."""
    first = error.args[0] if isinstance(error, shutil.Error) and error.args else None
    if isinstance(first, list) and first:  # of copying a folder: (from, to, reason) of each file
        _, name, reason = first[0]
        error = OSError(str(reason))
    else:
        elsewhere = f"a file in {tempfile.gettempdir()}, or of the MLflow store {shown_uri()},"
        name = error.filename2 or error.filename or elsewhere
    return WriteError(printable(name), error) if is_disk_error(error) else error


def _interrupt_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """Return the interrupt that SQLite turned into a database error, as it does in a commit."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


@cache
def _client(uri: str) -> MlflowClient:
    """Return a client of an initialised store; two concurrent initialisations would corrupt it."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    if not sys.stderr.isatty():
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # This logger prints tracebacks of errors that are raised anyway.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    what = f"the MLflow store {shown_uri()}"
    with _one_line_opening_errors(uri), _initialised(uri, what):
        # The constructor also brings the tables of an older MLflow up to date.
        client = PatientClient(MlflowClient(uri, registry_uri=uri), what)
        client.search_experiments(max_results=1)
    return client


@contextmanager
def _one_line_opening_errors(uri: str) -> Iterator[None]:
    """Raise errors of opening a store with a one-line message; MLflow passes many on unchanged."""
    try:
        with one_line_errors():
            try:
                yield
            except MlflowException as error:
                if error.error_code != "INVALID_PARAMETER_VALUE" or uri.startswith("http"):
                    raise
                raise InputError(
                    "MLFLOW_TRACKING_URI must be sqlite:///FILE, postgresql+psycopg://HOST/NAME "
                    f"or http://SERVER. Received: {shown_uri()}"
                ) from error
    except ModuleNotFoundError as error:
        name = error.name or ""
        raise InputError(
            f"the store {shown_uri()} needs the database driver {name}: install it with "
            f"pip install '{_DRIVERS.get(name, name)}', or change MLFLOW_TRACKING_URI"
        ) from error
    except SQLAlchemyError as error:
        text = driver_message(error)
        if uri.startswith("sqlite") and ("already exists" in text or "duplicate column" in text):
            raise _damaged(_sqlite_file(uri) or Path(uri), "is only half initialised") from error
        raise InputError(
            f"the MLflow store {shown_uri()} cannot be opened ({text[:300]}): check it, or change "
            "MLFLOW_TRACKING_URI"
        ) from error


@contextmanager
def _initialised(uri: str, what: str) -> Iterator[None]:
    """Hold a lock between processes and make the file, where the store is an SQLite file.

    Two processes that make or migrate the tables at once would corrupt them for good.
    """
    database = _sqlite_file(uri)
    if database is None:
        yield
        return
    _check_database(database)
    ensure_writable(database.parent)
    if database.exists():
        # Before our own lock, which others would wait for without a word.
        wait_until_readable(database, what)
    with lock(database):
        if not database.exists() or not database.stat().st_size:
            _make_database(database)
        yield


def _sqlite_file(uri: str) -> Path | None:
    if not uri.startswith("sqlite"):
        return None
    try:
        name = make_url(uri).database
    except ArgumentError:
        return None  # refused when it is opened
    return None if name in (None, "", ":memory:") else Path(name).absolute()


def _check_database(database: Path) -> None:
    # SQLAlchemy would retry such a file for a minute.
    if database.is_dir():
        raise _damaged(database, "is a folder")
    if database.is_file():
        with database.open("rb") as file:
            start = file.read(len(_SQLITE_HEADER))
        if start not in (b"", _SQLITE_HEADER):
            raise _damaged(database, "is not an SQLite file")


def _damaged(database: Path, reason: str) -> InputError:
    return InputError(
        f"an MLflow store is required, but {database} {reason}: move it away to start a new one "
        f"(mv {database.name} {database.name}.old), or set MLFLOW_TRACKING_URI"
    )


def _make_database(database: Path) -> None:
    """Make the store in a scratch folder and move it to ``database``; the caller holds the lock.

    MLflow's migrations commit one by one: a process killed among them leaves tables that no later
    start can complete.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    scratch = database.with_name(f".{database.name}.making")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        made = scratch / database.name
        store = SqlAlchemyStore(_sqlite_uri(made), DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)
        store.engine.dispose()
        # SQLite would roll the journal of an earlier start back into the new file.
        database.with_name(f"{database.name}-journal").unlink(missing_ok=True)
        os.replace(made, database)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


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
