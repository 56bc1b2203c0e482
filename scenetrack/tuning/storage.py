"""Where studies are kept: a journal file, or a database that several machines reach."""

from __future__ import annotations

import logging
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from scenetrack.errors import InputError, ScenetrackError
from scenetrack.system.files import ensure_writable
from scenetrack.tuning.journal_storage import LivingJournal

logger = logging.getLogger(__name__)

Lost: TypeAlias = Callable[[optuna.Study, FrozenTrial], None]

JOURNAL = "journal:"
# Until what another machine writes into a database at the same moment can be read.
SETTLE_S = 2.0
# Of a database: how often a worker says that it lives, and after how long it counts as dead.
_HEARTBEAT_S, _GRACE_S = 20, 60
# Processes that make the tables of a fresh database at once meet each other.
_TRIES, _PAUSE_S = 8, 0.25


def open_storage(address: str, lost: Lost) -> BaseStorage:
    """The storage at ``address``, made where there is none.

    Args:
        address: ``journal:FILE``, or the URL of a database such as
            ``postgresql+psycopg://HOST/NAME`` or ``sqlite:///FILE``.
        lost: told of a trial whose process, on whatever machine, no longer says that it lives.

    Raises:
        InputError: it is neither, or cannot be opened.
    """
    # Trials that fail are told by the worker in one line; Optuna would add a traceback.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if is_journal(address):
        return _journal(Path(address.removeprefix(JOURNAL)).expanduser().absolute(), lost)
    if "://" not in address:
        raise InputError(
            "storage must be journal:FILE or the URL of a database, such as "
            f"postgresql+psycopg://HOST/NAME. Received: {shown(address)}"
        )
    return _database(address, lost)


def is_journal(address: str) -> bool:
    """Whether the storage is a journal file; else it is a database."""
    return address.startswith(JOURNAL)


class _Database(RDBStorage):
    """A database that may be away for a while, as long as no trial ends meanwhile."""

    def record_heartbeat(self, trial_id: int) -> None:
        """Say that the trial is in work; the next time, where the database does not answer."""
        try:
            super().record_heartbeat(trial_id)
        except (SQLAlchemyError, StorageInternalError) as error:
            logger.debug("no sign of life of trial %d was written: %s", trial_id, error)


@contextmanager
def one_line_storage_errors(address: str) -> Iterator[None]:
    """Raise what a storage refuses inside the block as ScenetrackError, in one line."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        raise ScenetrackError(
            f"the storage {shown(address)} does not answer ({_line(cause or error)}): see that it "
            "runs, and start the same command again to go on with the study"
        ) from error


def shown(address: str) -> str:
    """The address as messages and runs may show it: without the password that it may hold."""
    hidden = re.sub(r"(://[^:/@]*):.*@", r"\1:***@", address)
    return re.sub(r"([?&][^=&]*password=)[^&]*", r"\1***", hidden)


def _journal(path: Path, lost: Lost) -> BaseStorage:
    if path.is_dir() or not path.name:
        raise InputError(f"storage must be a journal file. Received the folder {path}: name a file")
    ensure_writable(path.parent)
    try:
        return LivingJournal(path, lost)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise InputError(
            f"a journal of studies is required, but {path} is none, or damaged "
            f"({type(error).__name__}: {error}): name another file with --storage journal:FILE"
        ) from error


def _database(url: str, lost: Lost) -> BaseStorage:
    for attempt in range(_TRIES):
        try:
            with warnings.catch_warnings():
                # Of the heartbeat, which has been experimental since 2021.
                warnings.simplefilter("ignore", ExperimentalWarning)
                return _Database(
                    url,
                    engine_kwargs={"pool_pre_ping": True},
                    heartbeat_interval=_HEARTBEAT_S,
                    grace_period=_GRACE_S,
                    heartbeat_stale_trial_callback=lost,
                )
        except (SQLAlchemyError, ImportError, RuntimeError, ValueError, AssertionError) as error:
            failure = error
        if not _may_pass(url, failure):
            break
        time.sleep(_PAUSE_S * (attempt + 1))
    raise InputError(
        f"the storage {shown(url)} cannot be opened ({_line(failure)}): check it, or choose "
        "another with --storage"
    ) from failure


def _line(error: BaseException) -> str:
    """What the database's driver said."""
    return " ".join(str(getattr(error, "orig", None) or error).split())[:300]


def _may_pass(url: str, failure: Exception) -> bool:
    """Whether another process that makes the same tables may have been the cause."""
    if isinstance(failure, OperationalError):  # of a server: it is not there, or refuses us
        return url.startswith("sqlite")
    if isinstance(failure, ArgumentError):
        return False
    return isinstance(failure, SQLAlchemyError | AssertionError)
