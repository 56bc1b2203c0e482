"""The journal file of studies, safe against processes that die while they write to it."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from optuna import Study
from optuna.storages import JournalStorage
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from scenetrack.errors import InputError

logger = logging.getLogger(__name__)

_START = b'{"op_code":'
_BLOCK = 1 << 16
# Key of a trial's system attributes: seconds since 1970.
_ALIVE = "alive"
# How often a trial says that it is in work, and after how long it is not; clocks differ.
_HEARTBEAT_S, _GRACE_S = 60, 300


class LivingJournal(JournalStorage, BaseHeartbeat):
    """A journal in which trials in work say that they are, as they do in Optuna's databases.

    So a trial that another machine, or a container that is gone, left behind can be told.

    Args:
        path: of the file, made where there is none.
        lost: told of a trial whose process, on whatever machine, no longer says that it lives.

    Raises:
        InputError, OSError: see ``JournalFile``.
    """

    def __init__(self, path: Path, lost: Callable[[Study, FrozenTrial], None]) -> None:
        super().__init__(JournalFile(path))
        self._lost = lost

    def record_heartbeat(self, trial_id: int) -> None:
        """Say that the trial is in work; the next time, where the file cannot be written."""
        try:
            self.set_trial_system_attr(trial_id, _ALIVE, time.time())
        except (OSError, RuntimeError) as error:  # the latter where others took it for dead
            logger.debug("no sign of life of trial %d was written: %s", trial_id, error)

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        oldest = time.time() - _GRACE_S
        return [
            one._trial_id
            for one in self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
            if one.system_attrs.get(_ALIVE, math.inf) < oldest
        ]

    def get_heartbeat_interval(self) -> int:
        """Seconds."""
        return _HEARTBEAT_S

    def get_heartbeat_stale_trial_callback(self) -> Callable[[Study, FrozenTrial], None]:
        """Told of trials that were found dead."""
        return self._lost


class JournalFile(JournalFileBackend):
    """Optuna's journal, whose lock and last line survive the death of any process.

    Args:
        path: of the file, made where there is none.

    Raises:
        InputError: the file is something else; it is left as it is.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        if path.exists():
            _check_is_journal(path)
        super().__init__(str(path), lock_obj=JournalLock(path))


class JournalLock(JournalFileOpenLock):
    """Optuna's lock file, of which it is known whether its owner on this machine lives.

    Optuna alone waits half a minute for a lock that a killed process left. Here each process first
    takes a lock of the operating system, which dies with its owner: whoever holds that one and
    finds a lock file of this machine knows that nobody holds it any more. Other machines, and
    programs such as optuna-dashboard, see the lock file as ever.

    Whoever holds the lock may write, so a line that a process left unfinished is cut off first: the
    next one would be joined to it, and no process could read the journal again.

    Args:
        path: of the journal.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._guard = FileLock(f"{path}.guard", poll_interval=0.005)

    def acquire(self) -> bool:
        """Take the lock, as soon as no other process has it."""
        self._guard.acquire()
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
        """Give the lock back."""
        try:
            super().release()
        finally:
            self._guard.release()

    def _holder(self) -> str:
        try:
            return Path(self._lock_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return ""


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
            logger.warning("%s: an unfinished line at its end is cut off", path)
            file.truncate(kept)
