"""Output of predictions: rows to standard output, or into a file that appears when it is whole."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

from filelock import Timeout

from scenetrack.data.decoding import IMAGE_SUFFIXES
from scenetrack.delivery.output_journal import Journal
from scenetrack.delivery.rows import Row, as_csv, as_jsonl, cells, columns
from scenetrack.errors import ConfigError, InputError, ScenetrackError
from scenetrack.system.files import ensure_writable, lock, printable, replacing, user_path
from scenetrack.system.terminal import visible

_FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}
_MODELS = frozenset({".keras", ".onnx"})
_ROW_GROUP = 2**14


class Output(Protocol):
    """What takes rows in the order of the images.

    ``kept`` rows are there already, from a process that was killed; ``failures`` of all rows have
    an error.
    """

    kept: int
    failures: int

    def add(self, rows: Sequence[Row]) -> None:
        """Take the rows of a batch."""
        ...


def format_of(format: str, output: str) -> str:
    """Return csv, jsonl or parquet: ``format`` where it is given, else by the suffix of ``output``.

    Raises:
        ConfigError: the output would be binary on a terminal, or replace a model or an image.
    """
    suffix = os.path.splitext(output)[1].lower()
    chosen = format or _FORMATS.get(suffix, "csv")
    if chosen == "parquet" and not output:
        raise ConfigError("format parquet needs a file: add -o FILE.parquet")
    if suffix in _MODELS | IMAGE_SUFFIXES:
        raise ConfigError(
            f"output must be a file for rows, not one of {suffix}. Received: {printable(output)}"
        )
    return chosen


def output_file(output: str) -> Path:
    """Return the file that ``output`` names, links resolved, in a folder that can be written.

    Raises:
        InputError: it cannot be a file there.
    """
    given = user_path(output)
    if given.is_absolute() and given.parts[1:2] in (("dev",), ("proc",)):
        # /dev/stdout may lead to a file, which would be replaced instead of added to.
        raise InputError(
            f"output must be a file, but {printable(output)} is a device: leave --output out to "
            "write to standard output"
        )
    target = Path(os.path.realpath(given))
    if target.exists() and not target.is_file():
        raise InputError(
            f"output must be a file, but {printable(output)} is none: choose another name"
        )
    ensure_writable(target.parent)
    return target


class Stream:
    """Rows written to a binary stream as they come, flushed batch by batch.

    On a terminal, control characters of names are shown instead of obeyed.

    Args:
        stream: such as standard output.
        format: csv or jsonl.
        top: classes told of each image.
    """

    def __init__(self, stream: IO[bytes], format: str, top: int) -> None:
        self.kept = 0
        self.failures = 0
        self._stream = stream
        self._format = format
        self._top = top
        self._header = True
        self._shown = stream.isatty()

    def add(self, rows: Sequence[Row]) -> None:
        """Write the rows.

        Raises:
            BrokenPipeError: whoever read the stream has gone.
            ScenetrackError: it cannot be written for another reason.
        """
        try:
            lines = as_text(rows, self._format, self._top, header=self._header)
            self._stream.writelines(map(_visible, lines) if self._shown else lines)
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise ScenetrackError(
                f"rows cannot be written to standard output ({error.strerror}): send it elsewhere, "
                "or add -o FILE, which goes on where it stopped"
            ) from error
        self._header = False
        self.failures += sum(bool(row.error) for row in rows)


@contextmanager
def journalled(
    output: str, format: str, top: int, settings: Mapping[str, object], paths: Iterable[str]
) -> Iterator[Journal]:
    """Open a journal beside ``output``; the file is written from it when the block succeeds.

    What is at ``output`` stays until then; what is in the journal is used again by the next call
    of the same settings and paths.

    Raises:
        InputError: ``output`` is no place for a file.
        ScenetrackError: another process writes the same file, or the disk is full.
    """
    target = output_file(output)
    partial = target.with_name(f"{target.name}.partial")
    guard = lock(partial)
    try:
        guard.acquire(timeout=0)
    except Timeout as error:
        raise ScenetrackError(
            f"another process is writing {printable(output)}: wait for it or choose another output"
        ) from error
    except OSError as error:  # such as a name that is too long with ours behind it
        raise InputError(
            f"{printable(partial)}.lock is needed beside the output, but cannot be made "
            f"({error.strerror}): choose another output"
        ) from error
    try:
        with Journal(partial, settings, paths) as journal:
            yield journal
            _write(journal.rows(), target, format, top)
        partial.unlink()
        Path(guard.lock_file).unlink(missing_ok=True)
    finally:
        guard.release()


def as_text(rows: Iterable[Row], format: str, top: int, *, header: bool) -> Iterator[bytes]:
    """Format the rows as lines of csv or jsonl."""
    return as_jsonl(rows) if format == "jsonl" else as_csv(rows, top, header=header)


def _write(rows: Iterator[Row], target: Path, format: str, top: int) -> None:
    try:
        with replacing(target) as temporary:
            if format == "parquet":
                _write_parquet(rows, temporary, top)
                return
            with temporary.open("wb") as file:
                file.writelines(as_text(rows, format, top, header=True))
    except OSError as error:
        raise ScenetrackError(
            f"{printable(target)} cannot be written ({error.strerror}): free some room and start "
            "the same command again, which has nothing to classify any more"
        ) from error


def _write_parquet(rows: Iterator[Row], path: Path, top: int) -> None:
    """Write the columns of the CSV; texts are UTF-8, a name's other bytes shown as ``\\udcXX``."""
    arrow, parquet = import_pyarrow()
    names = columns(top)
    kinds = [arrow.float32() if name.startswith("prob") else arrow.string() for name in names]
    schema = arrow.schema(list(zip(names, kinds, strict=True)))
    with parquet.ParquetWriter(path, schema) as writer:
        while group := [cells(row, top) for row in islice(rows, _ROW_GROUP)]:
            arrays = [
                arrow.array(map(_utf8, values), kind)
                for values, kind in zip(zip(*group, strict=True), kinds, strict=True)
            ]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))


def _visible(line: bytes) -> bytes:
    return visible(line.decode("utf-8", "surrogateescape")).encode()


def _utf8(value: str | float | None) -> str | float | None:
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "backslashreplace").decode()


def import_pyarrow() -> tuple[Any, Any]:
    """Import PyArrow and its part for Parquet.

    Raises:
        ScenetrackError: it is not installed.
    """
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ScenetrackError(
            "format parquet needs PyArrow, which is not installed: pip install pyarrow"
        ) from error
