"""An SQLite file that another program has locked."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(database: Path, seconds: float = 60) -> Iterator[None]:
    """Lock the file as another program does, for so long or until the block ends."""
    holder = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    ended = threading.Event()

    def release() -> None:
        ended.wait(seconds)
        holder.execute("COMMIT")

    thread = threading.Thread(target=release)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        holder.close()
