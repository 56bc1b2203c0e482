"""The array cache: stores an array once and returns it memory-mapped, within a bound on size."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from filelock import Timeout

from scenetrack.cache.entries import (
    OVERHEAD,
    ArraySpec,
    DamagedEntry,
    entry_name,
    map_entry,
    read_entry,
    temporary_array,
    write_entry,
)
from scenetrack.cache.eviction import SPARE, StoredEntry, evict, stored_entries
from scenetrack.cache.sizes import SIZE_VARIABLE, chosen_bound, folder_size, format_size
from scenetrack.errors import InputError
from scenetrack.system.files import cache_dir, discard, lock, printable

logger = logging.getLogger(__name__)


# The cache's folder of arrays, and the variable that bounds it.
ARRAYS = "arrays"
_DEFAULT_BOUND = 20 * 10**9
_SHARE_OF_DISK = 10
_SCRATCH = re.compile(r"\.([0-9a-f]{32})-\w+")


class Cache:
    """Disk cache of arrays by kind and key, in ``arrays/`` of the cache folder.

    The arrays take at most ``SCENETRACK_CACHE_SIZE`` bytes (by default 20 GB, or a tenth of the
    disk space that is free without them if that is less; 0 keeps none). The least recently used
    arrays are evicted first; arrays that a process has open are never evicted. An array that does
    not fit is written to a temporary file that is deleted when its last user closes it.

    Attributes:
        folder: folder that holds one folder for each kind.
        bound: largest total size in bytes; 0 switches the cache off.

    Raises:
        InputError: the folder cannot be written, or the variable is not a size.
    """

    def __init__(self) -> None:
        self.folder = cache_dir(ARRAYS)
        self.bound = self._bound()

    def open(self, kind: str, key: Mapping[str, str]) -> np.ndarray | None:
        """Return the array of ``key``, read-only and memory-mapped, or None if there is none.

        The checksum is verified. A damaged array is removed with a warning.
        """
        target = self._target(kind, key)
        if not self.bound or not os.path.lexists(target):
            return None
        try:
            return read_entry(target, key)
        except DamagedEntry:
            pass  # or another process is replacing it, which the lock below rules out
        with lock(target):
            return self._open_or_remove(target, key)

    def store(
        self, kind: str, key: Mapping[str, str], spec: ArraySpec, blocks: Iterator[np.ndarray]
    ) -> np.ndarray:
        """Write an array block by block and return it, read-only and memory-mapped.

        If another process is writing the same array, wait for it and return that array; ``blocks``
        is then never iterated over. At most one block is held in memory.

        Args:
            kind: kind of array, a plain word: the name of its folder.
            key: everything that the array depends on, in words that ``scenetrack cache`` can show.
            spec: shape and dtype of the whole array.
            blocks: parts of the array in order, [b, *shape[1:]] of the same dtype, any b.

        Raises:
            InputError: the disk is full. As after any failure, no partial file remains.
            ValueError: the blocks do not match ``spec``.
        """
        if not self.bound:
            return self._temporary(kind, spec, blocks)
        self._remove_leftovers()
        target = self._target(kind, key)
        with lock(target):
            found = self._open_or_remove(target, key)
            if found is not None:
                return found
            if not evict(self.folder, self.bound, spec.nbytes + OVERHEAD):
                _say_full(self.bound, kind, spec.nbytes)
                return self._temporary(kind, spec, blocks)
            with self._room_needed(kind, spec):
                write_entry(target, key, spec, blocks)
            made = map_entry(target, spec)
        # Other processes may have filled the cache meanwhile; the new array is open and stays.
        evict(self.folder, self.bound, 0)
        return made

    @contextmanager
    def made_once(self, kind: str, key: Mapping[str, str]) -> Iterator[None]:
        """Hold an inter-process lock so that only one process computes the array of ``key``.

        The other processes wait for the block to end. Call ``open`` first inside the block, since
        another process may have stored the array, and ``store`` before the block ends.
        """
        if not self.bound:
            yield
            return
        target = self._target(kind, key)
        making = lock(target.with_name(f"{target.name}.making"))
        try:
            making.acquire(timeout=0)
        except Timeout:
            logger.info("waiting for another process that computes the same %s", kind)
            making.acquire()
        try:
            yield
        finally:
            making.release()

    def entries(self) -> list[StoredEntry]:
        """Return all entries, the least recently used first."""
        return stored_entries(self.folder)

    def _target(self, kind: str, key: Mapping[str, str]) -> Path:
        return self.folder / kind / entry_name(key)

    def _bound(self) -> int:
        chosen = chosen_bound()
        if chosen is not None:
            return chosen
        free = shutil.disk_usage(self.folder).free + folder_size(self.folder)
        return min(_DEFAULT_BOUND, free // _SHARE_OF_DISK)

    def _open_or_remove(self, target: Path, key: Mapping[str, str]) -> np.ndarray | None:
        """Do what ``open`` does; the caller holds the entry's lock."""
        try:
            return read_entry(target, key)
        except DamagedEntry as damage:
            logger.warning("%s is damaged (%s) and is computed again", target, damage)
        try:
            discard(target)
        except OSError as error:
            raise InputError(
                f"a cache that can be changed is required, but {printable(target)} is damaged "
                f"and cannot be removed ({error.strerror}): delete it"
            ) from error
        return None

    def _remove_leftovers(self) -> None:
        """Remove the partial files of processes that were killed."""
        for path in self.folder.glob("*/.*"):
            owner = _SCRATCH.fullmatch(path.name)
            if owner is None:
                continue
            try:
                with lock(path.parent / owner[1]).acquire(timeout=0):
                    shutil.rmtree(path, ignore_errors=True)
            except Timeout:
                continue

    def _temporary(self, kind: str, spec: ArraySpec, blocks: Iterator[np.ndarray]) -> np.ndarray:
        with self._room_needed(kind, spec):
            return temporary_array(self.folder, spec, blocks)

    @contextmanager
    def _room_needed(self, kind: str, spec: ArraySpec) -> Iterator[None]:
        """Raise InputError if the disk is full, before or while the block writes."""
        try:
            if shutil.disk_usage(self.folder).free < spec.nbytes + SPARE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            yield
        except OSError as error:
            # Reading the source of the blocks may fail too; that error is passed on as it is.
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            left = format_size(shutil.disk_usage(self.folder).free)
            raise InputError(
                f"the cache needs {format_size(spec.nbytes)} for {kind}, but "
                f"{printable(self.folder)} has {left} left ({error.strerror}): free some room or "
                "set SCENETRACK_CACHE to another folder"
            ) from error


@cache
def _say_full(bound: int, kind: str, size: int) -> None:
    """Say that an array is not kept: once, however often a run makes such ones."""
    logger.info(
        "cache full (%s): %s (%s) are not kept; raise %s to keep them",
        format_size(bound),
        kind,
        format_size(size),
        SIZE_VARIABLE,
    )
