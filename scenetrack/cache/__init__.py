"""The cache of big arrays: made once, found again, bounded in size."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import Timeout

from scenetrack.cache.entries import (
    OVERHEAD,
    ArraySpec,
    DamagedEntry,
    entry_name,
    last_used,
    map_entry,
    read_entry,
    remove_entry,
    temporary_array,
    write_entry,
)
from scenetrack.errors import InputError
from scenetrack.system.files import cache_dir, discard, lock, printable

__all__ = [
    "ARRAYS",
    "SIZE_VARIABLE",
    "ArraySpec",
    "Cache",
    "StoredEntry",
    "chosen_bound",
    "folder_size",
    "format_size",
    "parse_size",
]

logger = logging.getLogger(__name__)

# The cache's folder of arrays, and the variable that bounds it.
ARRAYS = "arrays"
SIZE_VARIABLE = "SCENETRACK_CACHE_SIZE"
_DEFAULT_BOUND = 20 * 10**9
_SHARE_OF_DISK = 10
# Left free on the disk, for what others write meanwhile.
_SPARE = 2**24
# Only what looks like ours is ever counted or removed.
_NAME = re.compile(r"[0-9a-f]{32}")
_SCRATCH = re.compile(r"\.([0-9a-f]{32})-\w+")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)b?|b)?", re.IGNORECASE)


@dataclass(frozen=True)
class StoredEntry:
    """An entry on disk: ``size`` in bytes, ``used`` in seconds since 1970."""

    kind: str
    path: Path
    size: int
    used: float


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
            if not self._make_room(spec.nbytes + OVERHEAD):
                logger.info(
                    "%s (%s) find no room in the cache of %s and are not kept: raise %s",
                    kind,
                    format_size(spec.nbytes),
                    format_size(self.bound),
                    SIZE_VARIABLE,
                )
                return self._temporary(kind, spec, blocks)
            with self._room_needed(kind, spec):
                write_entry(target, key, spec, blocks)
            made = map_entry(target, spec)
        # Others may have filled the room meanwhile; what was just made is open and stays.
        self._make_room(0)
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
        found = [
            StoredEntry(path.parent.name, path, folder_size(path), last_used(path))
            for path in self.folder.glob("*/*")
            if _NAME.fullmatch(path.name)
        ]
        return sorted(found, key=lambda entry: (entry.used, entry.path))

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

    def _make_room(self, needed: int) -> bool:
        """Remove the least recently used entries until ``needed`` bytes fit; whether they do."""
        if needed > self.bound:
            return False
        excess = folder_size(self.folder) + needed - self.bound
        missing = needed + _SPARE - shutil.disk_usage(self.folder).free if needed else 0
        removed: list[int] = []
        for entry in self.entries():
            if max(excess, missing) <= sum(removed):
                break
            if remove_entry(entry.path):
                logger.debug("removed %s of %s", entry.path, format_size(entry.size))
                removed.append(entry.size)
        if removed:
            logger.info(
                "removed %d entries of %s from the cache (SCENETRACK_CACHE_SIZE) to make room",
                len(removed),
                format_size(sum(removed)),
            )
        return excess <= sum(removed)

    def _temporary(self, kind: str, spec: ArraySpec, blocks: Iterator[np.ndarray]) -> np.ndarray:
        with self._room_needed(kind, spec):
            return temporary_array(self.folder, spec, blocks)

    @contextmanager
    def _room_needed(self, kind: str, spec: ArraySpec) -> Iterator[None]:
        """Raise InputError where the disk has no room, before it is written to or meanwhile."""
        try:
            if shutil.disk_usage(self.folder).free < spec.nbytes + _SPARE:
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


def chosen_bound() -> int | None:
    """Bytes that ``SCENETRACK_CACHE_SIZE`` allows; None where it is not set.

    Raises:
        InputError: it is no size.
    """
    text = os.environ.get(SIZE_VARIABLE, "").strip()
    return parse_size(text) if text else None


def parse_size(text: str) -> int:
    """Bytes of a size such as ``20GB``, ``1.5 TB``, ``512MiB`` or ``0``.

    Raises:
        InputError: it is no size.
    """
    parts = _SIZE.fullmatch(text.strip())
    if parts is None:
        raise InputError(
            f"{SIZE_VARIABLE} must be a size such as 20GB, or 0 to keep no arrays. "
            f"Received: {printable(text)}"
        )
    number, unit, binary = parts.groups()
    step = 1024 if binary else 1000
    return int(float(number) * step ** (" kmgt".index(unit.lower()) if unit else 0))


def format_size(size: int) -> str:
    """``size`` in bytes as people read it: ``1.9 GB``, 1 GB being 10^9 bytes."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def folder_size(path: Path) -> int:
    """Bytes of all files at or below ``path``; links count for themselves."""
    total = 0
    for place in (path, *path.rglob("*")):
        try:
            status = place.lstat()
        except OSError:
            continue  # removed meanwhile
        if not stat.S_ISDIR(status.st_mode):
            total += status.st_size
    return total
