"""Room on the disk of a store, given back so that a run can be ended when the disk is full."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

# Bytes: SQLite needs a journal of the pages that the end of a run changes, and a few new ones.
_ROOM = 2**18


@contextmanager
def reserved_room(folder: Path | None) -> Iterator[None]:
    """Hold some room on the disk of ``folder`` until the block ends, or raises an error.

    The room is a file without a name, so that a killed process leaves nothing. Where there is no
    room, or no folder, nothing is held.
    """
    file = None if folder is None else _filled(folder)
    try:
        yield
    finally:
        if file is not None:
            file.close()


def _filled(folder: Path) -> IO[bytes] | None:
    try:
        file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
    except OSError:
        return None
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, _ROOM)
        else:
            file.write(bytes(_ROOM))
    except OSError:
        file.close()
        return None
    return file
