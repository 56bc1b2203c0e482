"""Cache entries: one folder for each array, verified by checksum when opened, memory-mapped.

An entry is a folder with ``data.npy`` and ``entry.json``: the key in full, shape, dtype, size,
checksum, versions and date. It is created atomically. A process that maps the data holds a shared
lock on the file for as long as the mapping exists, so that other processes see it is in use.
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
from scenetrack.system.foreign import parsed_json
from scenetrack.system.machine import available_cpus

DATA = "data.npy"
ABOUT = "entry.json"
# Bytes of an entry besides the array's elements: the .npy header and entry.json, rounded up.
OVERHEAD = 2**14
_PART = 2**22


class DamagedEntry(Exception):
    """An entry exists but differs from what was written; the text says how."""


@dataclass(frozen=True)
class ArraySpec:
    """Shape and dtype of an array that is still to be computed.

    Attributes:
        shape: shape of the whole array; its blocks are cut along the first axis.
        dtype: NumPy's name of the dtype, such as "uint8" or "float32"; not "object".
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Size of the elements in bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def entry_name(key: Mapping[str, str]) -> str:
    """Return an entry's folder name: 32 hexadecimal digits, independent of the order of ``key``."""
    return hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:32]


def write_entry(
    target: Path, key: Mapping[str, str], spec: ArraySpec, blocks: Iterator[np.ndarray]
) -> None:
    """Write the entry ``target`` atomically from blocks [b, ...] along the first axis.

    Raises:
        ValueError: the blocks do not match ``spec``.
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
    """Return the array of an entry, memory-mapped read-only, or None if there is no entry.

    The entry's time of last use is set to now.

    Raises:
        DamagedEntry: the entry is incomplete, belongs to another key, or its data have changed.
    """
    if not os.path.lexists(folder):
        return None
    try:
        about = describe_entry(folder)
        if about["key"] != dict(key):
            raise DamagedEntry("it belongs to another key")
        data = folder / DATA
        with data.open("rb") as file:
            # First of all, so that no process removes the entry while it is being checked.
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
    """Return the content of an entry's ``entry.json``.

    Raises:
        OSError: the file does not exist or cannot be read.
        ValueError: the file is not JSON.
        TypeError: the file is JSON but not an object.
    """
    about = parsed_json((folder / ABOUT).read_text(encoding="utf-8"))
    if not isinstance(about, dict):
        raise TypeError
    return about


def map_entry(folder: Path, spec: ArraySpec) -> np.ndarray:
    """Return the data of an entry as a read-only array without verifying the checksum.

    The entry counts as in use for as long as the array exists.

    Raises:
        OSError, ValueError: the data do not exist or do not match ``spec``.
    """
    with (folder / DATA).open("rb") as file:
        _hold(file)
        return _mapped(file, spec)


def temporary_array(folder: Path, spec: ArraySpec, blocks: Iterator[np.ndarray]) -> np.ndarray:
    """Return an array in an unnamed file of ``folder`` that is deleted when it is last closed.

    Raises:
        ValueError, OSError: as ``write_entry``.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        _write_array(file, spec, blocks)
        file.flush()
        file.seek(0)
        return _mapped(file, spec)


def touch(folder: Path) -> None:
    """Record that the entry is used now, as the modification time of ``entry.json``."""
    # Just removed, or owned by another user: then the entry only looks older than it is.
    with suppress(OSError):
        os.utime(folder / ABOUT)


def last_used(folder: Path) -> float:
    """Return the time of last use in seconds since 1970, or 0 if it is unknown."""
    try:
        return (folder / ABOUT).stat().st_mtime
    except OSError:
        return 0.0


def remove_entry(folder: Path) -> bool:
    """Remove an entry and return True, or return False if a process writes it or has it open."""
    try:
        # Without the lock an entry could be removed before the process that wrote it opens it.
        with lock(folder).acquire(timeout=0), _claimed(folder / DATA) as free:
            return free and _moved_away(folder)
    except Timeout:
        return False


def is_in_use(folder: Path) -> bool:
    """Return whether a process writes the entry or has it open."""
    try:
        with lock(folder).acquire(timeout=0), _claimed(folder / DATA) as free:
            return not free
    except Timeout:
        return True


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
    """Return the CRC-32 of the CRC-32s of every 4 MiB of a file: eight hexadecimal digits.

    Threads read the parts, and no part stays in memory. Any single wrong bit changes the result.
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
    # The full length from the start, so that evictions by other processes count it.
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
    # Passed as an open file: the mapping keeps a copy of the descriptor and with it the lock.
    mapped = np.memmap(file, dtype=dtype, mode="r", offset=file.tell(), shape=shape)
    return np.asarray(mapped)


if sys.platform == "win32":

    def _hold(file: IO[bytes]) -> None:
        """Do nothing: Windows neither moves nor deletes a file that is mapped."""

    @contextmanager
    def _claimed(data: Path) -> Iterator[bool]:
        yield True

else:
    import fcntl

    def _hold(file: IO[bytes]) -> None:
        """Lock ``file`` against removal until its last descriptor is closed."""
        # On a file system without locks, mapped data remain readable after the file is deleted.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_SH)

    @contextmanager
    def _claimed(data: Path) -> Iterator[bool]:
        """Yield whether no process has ``data`` open; none can open it within the block."""
        try:
            # For writing: NFS emulates these locks, and there only a writer may lock exclusively.
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
