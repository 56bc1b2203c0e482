"""The journal file of studies, safe against processes that die while they write to it."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

from filelock import FileLock
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from scenetrack.errors import InputError

logger = logging.getLogger(__name__)

_START = b'{"op_code":'
_BLOCK = 1 << 16


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
