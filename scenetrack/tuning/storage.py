"""Where studies are kept: a journal file, or a database that several machines reach."""

from __future__ import annotations

import logging
import os
import re
import time
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.exc import SQLAlchemyError

from scenetrack.errors import InputError
from scenetrack.storage import ensure_writable
from scenetrack.tuning.trials import retry

logger = logging.getLogger(__name__)

JOURNAL = "journal:"
# Of a database: how often a worker says that it lives, and after how long it counts as dead.
_HEARTBEAT_S, _GRACE_S = 20, 60
# Processes that make the tables of a fresh database at once meet each other.
_TRIES, _PAUSE_S = 8, 0.5


def open_storage(address: str) -> BaseStorage:
    """The storage at ``address``, made where there is none.

    Args:
        address: ``journal:FILE``, or the URL of a database such as
            ``postgresql+psycopg://HOST/NAME`` or ``sqlite:///FILE``.

    Raises:
        InputError: it is neither, or cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if address.startswith(JOURNAL):
        return _journal(Path(address.removeprefix(JOURNAL)).expanduser().absolute())
    if "://" not in address:
        raise InputError(
            "storage must be journal:FILE or the URL of a database, such as "
            f"postgresql+psycopg://HOST/NAME. Received: {shown(address)}"
        )
    return _database(address)


def shown(address: str) -> str:
    """The address as messages may show it: without the password that it may hold."""
    return re.sub(r"(//[^:/@]*):[^@/]*@", r"\1:***@", address)


def _journal(path: Path) -> BaseStorage:
    if path.is_dir() or not path.name:
        raise InputError(f"storage must be a journal file. Received the folder {path}: name a file")
    ensure_writable(path.parent)
    # A lock that is a file opened anew, for file systems without links too; both are given up by
    # others after 30 s, should a process die with it.
    lock = JournalFileOpenLock(str(path))
    try:
        backend = JournalFileBackend(str(path), lock_obj=lock)
        lock.acquire()
        try:
            _mend_last_line(path)
        finally:
            lock.release()
        return JournalStorage(backend)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"a journal of studies is required, but {path} is none ({error}): name another file "
            "with --storage journal:FILE"
        ) from error


def _mend_last_line(path: Path) -> None:
    """Cut a line that a process left unfinished: the next one would be joined to it."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        if not end:
            return
        start = max(0, end - 2**20)
        file.seek(start)
        tail = file.read()
        if tail.endswith(b"\n"):
            return
        logger.warning("%s: an unfinished line at its end is cut off", path)
        file.truncate(start + tail.rfind(b"\n") + 1)


def _database(url: str) -> BaseStorage:
    for attempt in range(_TRIES):
        try:
            return RDBStorage(
                url,
                engine_kwargs={"pool_pre_ping": True},
                heartbeat_interval=_HEARTBEAT_S,
                grace_period=_GRACE_S,
                heartbeat_stale_trial_callback=retry,
            )
        except (SQLAlchemyError, ImportError, RuntimeError) as error:
            failure = error
        # Another process may have been making the same tables.
        time.sleep(_PAUSE_S * (attempt + 1) / 2)
        if isinstance(failure, ImportError):
            break
    text = " ".join(str(getattr(failure, "orig", None) or failure).split())[:300]
    raise InputError(
        f"the storage {shown(url)} cannot be opened ({text}): check it, or choose another with "
        "--storage"
    ) from failure
