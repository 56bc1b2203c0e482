"""States of files: whether a file is still the one whose content was read before."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Self

# Clocks of file systems tick in steps of at most two seconds (FAT): of two changes in one step
# only the first is seen in the times.
_TICK_NS = 2_000_000_000


@dataclass(frozen=True)
class FileState:
    """What the system tells of a file without its content.

    ``rsync -t``, ``cp -p`` and archives give new content an old modification time; the inode and
    the time of the last change of the inode (ctime), which no program can set, tell it apart.

    Attributes:
        size: in bytes.
        modified, changed: times of modification and of change in ns since 1970.
        device, inode: where the file lies.
    """

    size: int
    modified: int
    changed: int
    device: int
    inode: int

    @classmethod
    def of(cls, file: Path | str | int) -> Self:
        """Return the state of a path, links followed, or of an open file's descriptor.

        Raises:
            OSError: there is no such file.
        """
        status = os.stat(file)
        return cls(
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_dev,
            status.st_ino,
        )

    def numbers(self) -> list[int]:
        """Return the state as JSON holds it."""
        return list(astuple(self))

    def is_that_of(self, remembered: Sequence[int]) -> bool:
        """Return whether the file is the one of the ``numbers`` remembered.

        Where the system has no time of change, as Windows, no file is: it has to be read.
        """
        return os.name != "nt" and list(remembered) == self.numbers()

    @property
    def is_settled(self) -> bool:
        """Whether a later change of the file would show: it was not changed just now."""
        now = time.time_ns()
        return self.changed < now - _TICK_NS and self.modified < now
