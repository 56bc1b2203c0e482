"""Journal of an unfinished output, by which a killed prediction is continued."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

from scenetrack.delivery.rows import Row, as_jsonl, from_json
from scenetrack.errors import InputError, ScenetrackError
from scenetrack.system.file_state import FileState
from scenetrack.system.files import printable
from scenetrack.system.foreign import parsed_json

logger = logging.getLogger(__name__)

_VERSION = 2
_LONGEST_HEADER = 2**20


class Journal:
    """Rows in ``path``: a line that says what they are of, then a line for each row.

    The line has the state of the image's file, without a space, and the row, both in JSON.

    Whole rows are handed to the operating system batch by batch, so that the end of this process,
    however sudden, loses no batch that was added.

    Args:
        path: of the file.
        settings: JSON values that must be equal for rows to be used again.
        paths: of all images, in the order of the rows.

    Attributes:
        kept: rows found from an earlier, killed process: those of the first ``kept`` paths.
        failures: rows with an error, the kept ones included.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path: Path, settings: object, paths: Iterable[str]) -> None:
        self.path = path
        self.kept = 0
        self.failures = 0
        try:
            # Without a buffer, which would be written once more when a full disk's file is closed.
            self._file = path.open("ab", buffering=0)
            self._recover(parsed_json(json.dumps([_VERSION, settings])), paths)
        except OSError as error:
            raise InputError(
                f"rows are kept in {printable(path)} until all are there, but it cannot be "
                f"written ({error.strerror}): choose another output or change its permissions"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, rows: Sequence[Row]) -> None:
        """Keep the rows, whatever happens to this process from now on.

        Raises:
            ScenetrackError: the disk is full or fails.
        """
        try:
            lines = zip(map(_state, rows), as_jsonl(rows), strict=True)
            self._write(b"".join(state + b" " + line for state, line in lines))
        except OSError as error:
            raise ScenetrackError(
                f"{printable(self.path)} cannot be written ({error.strerror}): free some room and "
                "start the same command again, which goes on from there"
            ) from error
        self.failures += sum(bool(row.error) for row in rows)

    def rows(self) -> Iterator[Row]:
        """Yield every row from the first."""
        with self.path.open("rb") as file:
            file.readline()
            yield from (from_json(line.partition(b" ")[2]) for line in file)

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]

    def _recover(self, settings: object, paths: Iterable[str]) -> None:
        with self.path.open("rb") as file:
            first = file.readline(_LONGEST_HEADER)
            began = _beginning(first, settings)
            if began is not None:
                self._file.truncate(len(first) + self._count_usable(file, paths, began))
                logger.info("reusing %d rows of %s", self.kept, printable(self.path))
                return
        if first:
            logger.info(
                "starting anew: %s is of another model, other settings or images",
                printable(self.path),
            )
        self._file.truncate(0)
        # The clock of the file system, which is not always that of this machine.
        header = {"settings": settings, "began": os.fstat(self._file.fileno()).st_ctime_ns}
        self._write((json.dumps(header) + "\n").encode())

    def _count_usable(self, lines: Iterable[bytes], paths: Iterable[str], began: int) -> int:
        """Count the rows that still hold, and return how many bytes they take."""
        length = 0
        for line, path in zip(lines, paths, strict=False):
            state, _, content = line.partition(b" ")
            row = _whole(content)
            if row is None or row.path != path or not _unchanged(row, state, began):
                break
            self.kept += 1
            self.failures += bool(row.error)
            length += len(line)
        return length


def _beginning(header: bytes, settings: object) -> int | None:
    """Return when a journal of these settings began; None where the header is of another one."""
    try:
        values = parsed_json(header)
        same = header.endswith(b"\n") and values["settings"] == settings
        return int(values["began"]) if same else None
    except (KeyError, OverflowError, TypeError, ValueError):
        return None


def _whole(line: bytes) -> Row | None:
    """Return the row of a line, None where the process was killed while it was written."""
    try:
        return from_json(line) if line.endswith(b"\n") else None
    except ValueError:
        return None


def _state(row: Row) -> bytes:
    """Return the state of a row's file, or null where there is none."""
    try:
        numbers = FileState.of(row.path).numbers()
    except (OSError, ValueError):
        return b"null"
    return json.dumps(numbers, separators=(",", ":")).encode()


def _unchanged(row: Row, state: bytes, since: int) -> bool:
    """Return whether the row's file is the one of ``state``, and older than ``since``.

    Args:
        row: of the journal.
        state: as ``_state`` gave it.
        since: when the journal began, in ns since 1970: what changed later may have changed while
            it was read.
    """
    now = _state(row)
    if now == b"null":
        return bool(row.error) and state == now
    try:
        found = FileState.of(row.path)
        return found.is_that_of(parsed_json(state)) and found.changed <= since
    except (OSError, TypeError, ValueError):
        return False
