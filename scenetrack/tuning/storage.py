"""Optuna storages of studies: a journal file, or a database that several machines share."""

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
from scenetrack.tuning.optuna_journal_storage import OptunaJournalStorage

logger = logging.getLogger(__name__)

StaleTrialCallback: TypeAlias = Callable[[optuna.Study, FrozenTrial], None]

JOURNAL = "journal:"
# Seconds after which a write of another machine at the same moment can be read.
SETTLE_S = 2.0
# Seconds between heartbeats in a database, and after which a trial is stale.
_HEARTBEAT_S, _GRACE_S = 20, 60
# Processes that create the tables of a new database at the same time disturb each other.
_TRIES, _PAUSE_S = 8, 0.25


def open_storage(address: str, on_stale_trial: StaleTrialCallback) -> BaseStorage:
    """Return the storage at ``address``, which is created if it does not exist.

    Args:
        address: ``journal:FILE``, or the URL of a database such as
            ``postgresql+psycopg://HOST/NAME`` or ``sqlite:///FILE``.
        on_stale_trial: called with a trial whose process, on any machine, sends no heartbeat.

    Raises:
        InputError: ``address`` has neither form, or the storage cannot be opened.
    """
    # The worker logs a failed trial in one line; Optuna would add a traceback.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if is_journal(address):
        return _journal(Path(address.removeprefix(JOURNAL)).expanduser().absolute(), on_stale_trial)
    if "://" not in address:
        raise InputError(
            "storage must be journal:FILE or the URL of a database, such as "
            f"postgresql+psycopg://HOST/NAME. Received: {redacted(address)}"
        )
    return _database(address, on_stale_trial)


def is_journal(address: str) -> bool:
    """Return whether the storage is a journal file; else it is a database."""
    return address.startswith(JOURNAL)


class _Database(RDBStorage):
    """Optuna's database storage, which may be unreachable for a while unless a trial ends."""

    def record_heartbeat(self, trial_id: int) -> None:
        """Write a heartbeat of the trial; do nothing if the database does not answer this time."""
        try:
            super().record_heartbeat(trial_id)
        except (SQLAlchemyError, StorageInternalError) as error:
            logger.debug("the heartbeat of trial %d could not be written: %s", trial_id, error)


@contextmanager
def one_line_storage_errors(address: str) -> Iterator[None]:
    """Raise errors of the storage inside the block as ScenetrackError, in one line."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        raise ScenetrackError(
            f"the storage {redacted(address)} does not answer ("
            f"{_driver_message(cause or error)}): check that it runs, and start the same command "
            "again to continue the study"
        ) from error


def redacted(address: str) -> str:
    """Return the address with asterisks in place of a password."""
    hidden = re.sub(r"(://[^:/@]*):.*@", r"\1:***@", address)
    return re.sub(r"([?&][^=&]*password=)[^&]*", r"\1***", hidden)


def _journal(path: Path, on_stale_trial: StaleTrialCallback) -> BaseStorage:
    if path.is_dir() or not path.name:
        raise InputError(f"storage must be a journal file. Received the folder {path}: name a file")
    ensure_writable(path.parent)
    try:
        return OptunaJournalStorage(path, on_stale_trial)
    except ScenetrackError:
        raise
    except Exception as error:  # Optuna replays whatever the lines say, which may fail anywhere
        raise InputError(
            f"a journal of studies is required, but {path} is none, or damaged "
            f"({type(error).__name__}: {error}): name another file with --storage journal:FILE"
        ) from error


def _database(url: str, on_stale_trial: StaleTrialCallback) -> BaseStorage:
    for attempt in range(_TRIES):
        try:
            with warnings.catch_warnings():
                # Optuna's heartbeat has been experimental since 2021.
                warnings.simplefilter("ignore", ExperimentalWarning)
                return _Database(
                    url,
                    engine_kwargs={"pool_pre_ping": True},
                    heartbeat_interval=_HEARTBEAT_S,
                    grace_period=_GRACE_S,
                    heartbeat_stale_trial_callback=on_stale_trial,
                )
        except (SQLAlchemyError, ImportError, RuntimeError, ValueError, AssertionError) as error:
            failure = error
        if not _may_be_transient(url, failure):
            break
        time.sleep(_PAUSE_S * (attempt + 1))
    raise InputError(
        f"the storage {redacted(url)} cannot be opened ({_driver_message(failure)}): check it, "
        "or choose another with --storage"
    ) from failure


def _driver_message(error: BaseException) -> str:
    """Return the message of the database's driver, in one line of up to 300 characters."""
    return " ".join(str(getattr(error, "orig", None) or error).split())[:300]


def _may_be_transient(url: str, failure: Exception) -> bool:
    """Return whether another process that creates the same tables may be the cause."""
    if isinstance(failure, OperationalError):  # a server is unreachable, or refuses us
        return url.startswith("sqlite")
    if isinstance(failure, ArgumentError):
        return False
    return isinstance(failure, SQLAlchemyError | AssertionError)
