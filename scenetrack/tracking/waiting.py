"""A client of the MLflow store that waits while another program has the store locked."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from scenetrack.system.databases import is_locked
from scenetrack.system.patience import TRY_S, patiently

# What MLflow begins each session with. SQLite would wait in C for so many milliseconds, where
# neither a signal nor a message comes through.
_MLFLOW_TIMEOUT = "PRAGMA busy_timeout = 20000"


class PatientClient:
    """An ``MlflowClient`` whose calls are repeated while another program has the store locked.

    A call that fails on a lock has changed nothing, or only what the same call changes again: each
    step in it is a transaction.

    Args:
        client: an ``MlflowClient``.
        what: name of the store, for messages.
    """

    def __init__(self, client: Any, what: str) -> None:
        self._client, self._what = client, what

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            return patiently(partial(found, *arguments, **named), is_locked, self._what)

        return call


def wait_until_readable(database: Path, what: str) -> None:
    """Wait while a program has the SQLite file locked; MLflow would wait without a word.

    Raises:
        StoreError: it stays locked.
    """
    patiently(partial(_read, database), is_locked_file, what)


def is_locked_file(error: Exception) -> bool:
    """Return whether an error of SQLite says that a program has locked the file."""
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def _read(database: Path) -> None:
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=TRY_S)
    try:
        connection.execute("SELECT name FROM sqlite_master LIMIT 1").fetchall()
    except sqlite3.Error as error:
        if is_locked_file(error):
            raise
        # MLflow reads it next, and says what is wrong with it.
    finally:
        connection.close()


@event.listens_for(Engine, "before_cursor_execute", retval=True)
def _shorten_timeout(
    connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any
) -> tuple[str, Any]:
    if statement.startswith(_MLFLOW_TIMEOUT):
        statement = f"PRAGMA busy_timeout = {TRY_S * 1000:.0f}"
    return statement, parameters
