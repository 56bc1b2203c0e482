"""Optuna storages of studies: a journal file, or a database that several machines share."""

from __future__ import annotations

import logging
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeAlias

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from scenetrack.errors import InputError, ScenetrackError
from scenetrack.system.databases import driver_message, is_locked
from scenetrack.system.files import ensure_writable
from scenetrack.system.patience import TRY_S, patiently
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
    """Optuna's database storage, which may be locked, or unreachable unless a trial ends.

    Its methods wait while another program has the database locked: each is a transaction.
    """

    def record_heartbeat(self, trial_id: int) -> None:
        """Write a heartbeat of the trial; do nothing if the database does not answer this time."""
        try:
            super().record_heartbeat(trial_id)
        except (SQLAlchemyError, StorageInternalError) as error:
            logger.debug("the heartbeat of trial %d could not be written: %s", trial_id, error)


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(storage: RDBStorage, *arguments: Any, **named: Any) -> Any:
        work = partial(method, storage, *arguments, **named)
        return patiently(work, is_locked, _shown(storage.url))

    return call


for _name in [*(name for name in vars(BaseStorage) if name[0] != "_"), "_get_stale_trial_ids"]:
    setattr(_Database, _name, _patient(getattr(RDBStorage, _name)))


@contextmanager
def one_line_storage_errors(address: str) -> Iterator[None]:
    """Raise errors of the storage inside the block as ScenetrackError, in one line."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        raise ScenetrackError(
            f"{_shown(address)} does not answer ("
            f"{driver_message(error)[:300]}): check that it runs, and start the same command "
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
                opened = partial(
                    _Database,
                    url,
                    engine_kwargs=_engine_settings(url),
                    heartbeat_interval=_HEARTBEAT_S,
                    grace_period=_GRACE_S,
                    heartbeat_stale_trial_callback=on_stale_trial,
                )
                return patiently(opened, is_locked, _shown(url))
        except (SQLAlchemyError, ImportError, RuntimeError, ValueError, AssertionError) as error:
            failure = error
        if not _may_be_transient(url, failure):
            break
        time.sleep(_PAUSE_S * (attempt + 1))
    raise InputError(
        f"{_shown(url)} cannot be opened ({driver_message(failure)[:300]}): check it, "
        "or choose another with --storage"
    ) from failure


def _engine_settings(url: str) -> dict[str, Any]:
    # SQLite would wait in C, where neither a signal nor a message comes through.
    sqlite = {"connect_args": {"timeout": TRY_S}} if url.startswith("sqlite") else {}
    return {"pool_pre_ping": True, **sqlite}


def _shown(address: str) -> str:
    return f"the storage {redacted(address)}"


def _may_be_transient(url: str, failure: Exception) -> bool:
    """Return whether another process that creates the same tables may be the cause."""
    if isinstance(failure, OperationalError):  # a server is unreachable, or refuses us
        return url.startswith("sqlite")
    if isinstance(failure, ArgumentError):
        return False
    return isinstance(failure, SQLAlchemyError | AssertionError)
