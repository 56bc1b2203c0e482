"""The cache of big arrays: made once, found again, bounded in size."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
    """Arrays by kind and key, in ``arrays/`` of the cache folder.

    They take up no more than ``SCENETRACK_CACHE_SIZE`` (20 GB, or a tenth of what is free
    without them if that is less; 0 keeps none). To make room the least recently used go first;
    those that a process has open stay. An array that finds no room is made in a temporary file
    that vanishes with its last user.

    Attributes:
        folder: where the kinds are.
        bound: bytes, 0 for no cache.

    Raises:
        InputError: the folder cannot be written, or the variable is no size.
    """

    def __init__(self) -> None:
        self.folder = cache_dir(ARRAYS)
        self.bound = self._bound()

    def open(self, kind: str, key: Mapping[str, str]) -> np.ndarray | None:
        """The array of ``key``, read-only and mapped from its file; None where there is none.

        Its checksum is compared. A damaged one is removed with a warning.
        """
        target = self._target(kind, key)
        if not self.bound or not os.path.lexists(target):
            return None
        try:
            return read_entry(target, key)
        except DamagedEntry:
            pass  # or replaced by another process just now; under the lock none does
        with lock(target):
            return self._open_or_remove(target, key)

    def store(
        self, kind: str, key: Mapping[str, str], spec: ArraySpec, blocks: Iterator[np.ndarray]
    ) -> np.ndarray:
        """Keep an array that comes in blocks and return it, read-only and mapped from its file.

        If another process makes the same array now, this waits and takes that one; ``blocks``
        are then never asked for. No more than a block is held in memory.

        Args:
            kind: of array, a plain word: the folder that it is in.
            key: all that the array depends on, in words that ``scenetrack cache`` can show.
            spec: shape and dtype of the whole array.
            blocks: the array's parts in order, [b, *shape[1:]] of the same dtype, any b.

        Raises:
            InputError: the disk has no room. As after any failure, nothing is left behind.
            ValueError: the blocks are not what ``spec`` promises.
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
                logger.info(
                    "cache full (%s): %s (%s) are not kept; raise %s to keep them",
                    format_size(self.bound),
                    kind,
                    format_size(spec.nbytes),
                    SIZE_VARIABLE,
                )
                return self._temporary(kind, spec, blocks)
            with self._room_needed(kind, spec):
                write_entry(target, key, spec, blocks)
            made = map_entry(target, spec)
        # Others may have filled the room meanwhile; what was just made is open and stays.
        evict(self.folder, self.bound, 0)
        return made

    @contextmanager
    def made_once(self, kind: str, key: Mapping[str, str]) -> Iterator[None]:
        """Hold off other processes that would make the array of ``key`` meanwhile.

        They wait, and are to look for it then: ``open`` inside the block, ``store`` before its end.
        """
        if not self.bound:
            yield
            return
        target = self._target(kind, key)
        alone = lock(target.with_name(f"{target.name}.making"))
        try:
            alone.acquire(timeout=0)
        except Timeout:
            logger.info("waiting for another process that makes the same of the %s", kind)
            alone.acquire()
        try:
            yield
        finally:
            alone.release()

    def entries(self) -> list[StoredEntry]:
        """All entries, the least recently used first."""
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
        """As ``open``, under the entry's lock."""
        try:
            return read_entry(target, key)
        except DamagedEntry as damage:
            logger.warning("%s is damaged (%s) and made anew", target, damage)
        try:
            discard(target)
        except OSError as error:
            raise InputError(
                f"a cache that can be changed is required, but {printable(target)} is damaged "
                f"and cannot be removed ({error.strerror}): delete it"
            ) from error
        return None

    def _remove_leftovers(self) -> None:
        """Remove what processes that were killed had begun to write."""
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
        """Raise InputError where the disk has no room, before it is written to or meanwhile."""
        try:
            if shutil.disk_usage(self.folder).free < spec.nbytes + SPARE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            yield
        except OSError as error:
            # Reading what the blocks are made of may fail too, and that is not ours to explain.
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            left = format_size(shutil.disk_usage(self.folder).free)
            raise InputError(
                f"the cache needs {format_size(spec.nbytes)} for {kind}, but "
                f"{printable(self.folder)} has {left} left ({error.strerror}): free some room or "
                "set SCENETRACK_CACHE to another folder"
            ) from error
