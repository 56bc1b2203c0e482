"""Optuna's storage in a journal file, safe against processes that die while they write to it."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from optuna import Study
from optuna.storages import JournalStorage
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from scenetrack.errors import InputError, StoreError
from scenetrack.system.files import printable
from scenetrack.system.patience import TRY_S, patiently

logger = logging.getLogger(__name__)

_START = b'{"op_code":'
_BLOCK = 1 << 16
# Key of a trial's system attributes: seconds since 1970.
_ALIVE = "alive"
# Seconds between heartbeats, and after which a trial is stale: clocks of machines differ.
_HEARTBEAT_S, _GRACE_S = 60, 300


class OptunaJournalStorage(JournalStorage, BaseHeartbeat):
    """Optuna's journal storage with heartbeats of running trials, as Optuna's databases have.

    The heartbeat shows that the process of a trial has died, even on another machine or in a
    container that no longer exists.

    Args:
        path: path of the journal file, which is created if it does not exist.
        on_stale_trial: called with a trial whose process, on any machine, sends no heartbeat.

    Raises:
        InputError, OSError: see ``OptunaJournalFile``.
    """

    def __init__(self, path: Path, on_stale_trial: Callable[[Study, FrozenTrial], None]) -> None:
        super().__init__(OptunaJournalFile(path))
        self._on_stale_trial = on_stale_trial

    def record_heartbeat(self, trial_id: int) -> None:
        """Write a heartbeat of the trial; do nothing if the file cannot be written this time."""
        try:
            self.set_trial_system_attr(trial_id, _ALIVE, time.time())
        # RuntimeError: another process marked it failed.
        except (OSError, RuntimeError, StoreError) as error:
            logger.debug("the heartbeat of trial %d could not be written: %s", trial_id, error)

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        oldest = time.time() - _GRACE_S
        return [
            trial._trial_id
            for trial in self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
            if _seconds(trial.system_attrs.get(_ALIVE, math.inf)) < oldest
        ]

    def get_heartbeat_interval(self) -> int:
        """Return the seconds between two heartbeats."""
        return _HEARTBEAT_S

    def get_heartbeat_stale_trial_callback(self) -> Callable[[Study, FrozenTrial], None]:
        """Return the function that is called with each stale trial."""
        return self._on_stale_trial


class OptunaJournalFile(JournalFileBackend):
    """Optuna's journal file, whose lock and last line survive the death of any process.

    Args:
        path: path of the journal file, which is created if it does not exist.

    Raises:
        InputError: the file is not an Optuna journal; it is not changed.
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        if path.exists():
            _check_is_journal(path)
        super().__init__(str(path), lock_obj=OptunaJournalLock(path))
        self._path = path

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the entries from a number on.

        Raises:
            InputError: a line is no entry.
        """
        try:
            yield from super().read_logs(log_number_from)
        except (RecursionError, ValueError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise InputError(
                f"a journal of studies is required, but {printable(self._path)} is none, or "
                f"damaged ({reason}): name another file with --storage journal:FILE"
            ) from error


class OptunaJournalLock(JournalFileOpenLock):
    """Optuna's lock file, which is removed at once if its owner on this machine has died.

    Optuna alone waits half a minute for a lock that a killed process left. Here each process first
    takes a lock of the operating system, which is released when its owner dies: the process that
    holds it and finds a lock file of this machine knows that the lock file has no owner any more.
    Other machines, and programs such as optuna-dashboard, see Optuna's usual lock file.

    The process that takes the lock first removes a line that another process left unfinished: the
    next line would be joined to it, and no process could read the journal again.

    Args:
        path: path of the journal file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._guard = FileLock(f"{path}.guard", poll_interval=0.005)

    def acquire(self) -> bool:
        """Wait until no other process has the lock, and take it; return True."""
        # In short tries: the holder may be stopped, or a file system slow to give a lock back.
        patiently(
            partial(self._guard.acquire, timeout=TRY_S),
            lambda error: isinstance(error, Timeout),
            f"the journal {self._path}",
        )
        try:
            if self._holder() == socket.gethostname():
                Path(self._lock_file).unlink(missing_ok=True)
            super().acquire()
            Path(self._lock_file).write_text(socket.gethostname(), encoding="utf-8")
            _cut_unfinished_line(self._path)
        except BaseException:
            self._guard.release()
            raise
        return True

    def release(self) -> None:
        """Release the lock."""
        try:
            super().release()
        finally:
            self._guard.release()

    def _holder(self) -> str:
        try:
            return Path(self._lock_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return ""


def _seconds(value: object) -> float:
    """Return the time of a heartbeat; that of a trial in work where it is none."""
    return float(value) if isinstance(value, int | float) else math.inf


def _check_is_journal(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(len(_START))
    if start != _START[: len(start)]:
        raise InputError(
            f"a journal of studies is required, but {path} is something else: name another file "
            "with --storage journal:FILE"
        )


def _cut_unfinished_line(path: Path) -> None:
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        kept = end
        while kept:
            start = max(0, kept - _BLOCK)
            file.seek(start)
            newline = file.read(kept - start).rfind(b"\n")
            if newline >= 0:
                kept = start + newline + 1
                break
            kept = start
        if kept < end:
            logger.warning("%s: removing an unfinished line at the end of the file", path)
            file.truncate(kept)
