"""Arrays on disk: one folder each, checked whenever it is opened, mapped instead of read.

An entry is a folder with ``data.npy`` and ``entry.json``: the key in full, shape, dtype, size,
checksum, versions and date. It appears whole under its name or not at all. Whoever maps it holds
a shared lock on its data for as long as the mapping lives, so that others see it is in use.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import Timeout

from scenetrack import __version__
from scenetrack.system.files import lock, replacing
from scenetrack.system.machine import available_cpus

DATA = "data.npy"
ABOUT = "entry.json"
# What an array takes besides its elements: the header of the file and entry.json, rounded up.
OVERHEAD = 2**14
_PART = 2**22


class DamagedEntry(Exception):
    """An entry is there but is not what was written; the text says in what way."""


@dataclass(frozen=True)
class ArraySpec:
    """What an array looks like before there is one.

    Attributes:
        shape: the whole array's; blocks of it are made along the first axis.
        dtype: NumPy's name, such as "uint8" or "float32"; no objects.
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def entry_name(key: Mapping[str, str]) -> str:
    """The folder's name: 32 hexadecimal digits, whatever the order of ``key``."""
    return hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:32]


def write_entry(
    target: Path, key: Mapping[str, str], spec: ArraySpec, blocks: Iterator[np.ndarray]
) -> None:
    """Write the entry ``target`` from blocks [b, ...] along the first axis; on failure, nothing.

    Raises:
        ValueError: the blocks are not what ``spec`` promises.
        OSError: the disk is full or fails.
    """
    with replacing(target) as temporary:
        temporary.mkdir()
        data = temporary / DATA
        with data.open("wb") as file:
            _write_array(file, spec, blocks)
        about = {
            "key": dict(key),
            "shape": list(spec.shape),
            "dtype": spec.dtype,
            "bytes": data.stat().st_size,
            "checksum": checksum(data),
            "versions": {"scenetrack": __version__, "numpy": np.__version__},
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        (temporary / ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")


def read_entry(folder: Path, key: Mapping[str, str]) -> np.ndarray | None:
    """The array of an entry, mapped read-only; None where there is no entry.

    Its time of last use becomes now.

    Raises:
        DamagedEntry: it is incomplete, of another key, or its data have changed.
    """
    if not os.path.lexists(folder):
        return None
    try:
        about = describe_entry(folder)
        if about["key"] != dict(key):
            raise DamagedEntry("it belongs to another key")
        data = folder / DATA
        with data.open("rb") as file:
            # First of all: what is being checked is not to be removed meanwhile.
            _hold(file)
            size = data.stat().st_size
            if size != about["bytes"]:
                raise DamagedEntry(f"{DATA} has {size} bytes, not {about['bytes']}")
            # Before the header is read: NumPy fails in many ways on a damaged one.
            if checksum(data) != about["checksum"]:
                raise DamagedEntry(f"the checksum of {DATA} is wrong")
            array = _mapped(file, ArraySpec(tuple(about["shape"]), about["dtype"]))
    except OSError as error:
        raise DamagedEntry(str(error.strerror)) from error
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedEntry(f"{ABOUT} does not describe it") from error
    touch(folder)
    return array


def describe_entry(folder: Path) -> dict[str, Any]:
    """What ``entry.json`` says.

    Raises:
        OSError: there is no such file.
        ValueError: it is no JSON.
        TypeError: it is JSON, but no description.
    """
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    if not isinstance(about, dict):
        raise TypeError
    return about


def map_entry(folder: Path, spec: ArraySpec) -> np.ndarray:
    """The data of an entry as a read-only array, unchecked; the entry is in use while it lives.

    Raises:
        OSError, ValueError: there are no data, or not those of ``spec``.
    """
    with (folder / DATA).open("rb") as file:
        _hold(file)
        return _mapped(file, spec)


def temporary_array(folder: Path, spec: ArraySpec, blocks: Iterator[np.ndarray]) -> np.ndarray:
    """An array in a file of ``folder`` that has no name and vanishes with its last user.

    Raises:
        ValueError, OSError: as ``write_entry``.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        _write_array(file, spec, blocks)
        file.flush()
        file.seek(0)
        return _mapped(file, spec)


def touch(folder: Path) -> None:
    """Note that the entry is used now, in the time of change of ``entry.json``."""
    # Removed a moment ago, or of another user: then it only looks older than it is.
    with suppress(OSError):
        os.utime(folder / ABOUT)


def last_used(folder: Path) -> float:
    """Seconds since 1970 of the last use; 0 where the entry does not tell."""
    try:
        return (folder / ABOUT).stat().st_mtime
    except OSError:
        return 0.0


def remove_entry(folder: Path) -> bool:
    """Remove an entry at once; False where a process makes it or has it open."""
    try:
        # Without it an entry could go between being made and being opened by its maker.
        with lock(folder).acquire(timeout=0), _claimed(folder / DATA) as free:
            return free and _moved_away(folder)
    except Timeout:
        return False


def _moved_away(folder: Path) -> bool:
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        os.replace(folder, scratch / folder.name)
    except FileNotFoundError:
        pass  # another process was faster
    except PermissionError:
        return False  # Windows does not move what is open
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return True


def checksum(path: Path) -> str:
    """The CRC-32 of the CRC-32s of every 4 MiB of a file: eight hexadecimal digits.

    Parts are read in threads and leave memory at once; one wrong bit is always noticed.
    """

    def part(start: int) -> bytes:
        with path.open("rb") as file:
            file.seek(start)
            return zlib.crc32(file.read(_PART)).to_bytes(4, "big")

    starts = range(0, path.stat().st_size, _PART)
    with ThreadPoolExecutor(min(available_cpus(), 8)) as pool:
        return f"{zlib.crc32(b''.join(pool.map(part, starts))):08x}"


def _write_array(file: IO[bytes], spec: ArraySpec, blocks: Iterator[np.ndarray]) -> None:
    """Write a .npy file of the blocks [b, ...] to ``file``."""
    dtype = np.dtype(spec.dtype)
    if dtype.hasobject:
        raise ValueError(f"a dtype without objects is required. Received: {spec.dtype}")
    np.lib.format.write_array_header_1_0(
        file,
        {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": spec.shape,
        },
    )
    # The full length from the start, so that others who make room count on it.
    file.truncate(file.tell() + spec.nbytes)
    rows = 0
    for block in blocks:
        rows += len(block)
        if block.dtype != dtype or block.shape[1:] != spec.shape[1:] or rows > spec.shape[0]:
            raise ValueError(
                f"blocks that make up {spec} are required. Received: {block.dtype} "
                f"{list(block.shape)}, the last of {rows} rows"
            )
        if block.size:
            file.write(np.ascontiguousarray(block).data)
    if rows != spec.shape[0]:
        raise ValueError(f"blocks that make up {spec} are required. Received: {rows} rows")


def _mapped(file: IO[bytes], spec: ArraySpec) -> np.ndarray:
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("another version of .npy")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    if shape != spec.shape or fortran_order or dtype != np.dtype(spec.dtype) or dtype.hasobject:
        raise ValueError(f"{dtype} {shape} instead of {spec}")
    # Handed over open, for the mapping keeps a copy of the descriptor and with it the lock.
    mapped = np.memmap(file, dtype=dtype, mode="r", offset=file.tell(), shape=shape)
    return np.asarray(mapped)


if sys.platform == "win32":

    def _hold(file: IO[bytes]) -> None:
        """Nothing to do: Windows neither moves nor deletes a file that is mapped."""

    @contextmanager
    def _claimed(data: Path) -> Iterator[bool]:
        yield True

else:
    import fcntl

    def _hold(file: IO[bytes]) -> None:
        """Lock ``file`` against removal until its last descriptor is closed."""
        # Where a file system has no locks, what is mapped still outlives its name.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_SH)

    @contextmanager
    def _claimed(data: Path) -> Iterator[bool]:
        """Whether nobody has ``data`` open; nobody can begin to use it within the block."""
        try:
            # For writing: where NFS stands in for locks, only a writer may lock out others.
            file = data.open("r+b")
        except OSError:
            yield True
            return
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            except OSError:
                pass
            yield True
