"""Eviction: removes the least recently used entries until a new one fits."""

from __future__ import annotations

import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from scenetrack.cache.entries import is_in_use, last_used, remove_entry
from scenetrack.cache.sizes import SIZE_VARIABLE, folder_size, format_size

logger = logging.getLogger(__name__)

# Bytes left free on the disk for what other processes write meanwhile.
SPARE = 2**24
# Only folders with names like those of entries are ever counted or removed.
_NAME = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class StoredEntry:
    """An entry on disk: ``size`` in bytes, time of last use ``used`` in seconds since 1970."""

    kind: str
    path: Path
    size: int
    used: float


def stored_entries(folder: Path) -> list[StoredEntry]:
    """Return all entries of the cache's ``folder``, the least recently used first."""
    found = [
        StoredEntry(path.parent.name, path, folder_size(path), last_used(path))
        for path in folder.glob("*/*")
        if _NAME.fullmatch(path.name)
    ]
    return sorted(found, key=lambda entry: (entry.used, entry.path))


def evict(folder: Path, bound: int, needed: int) -> bool:
    """Remove the least recently used entries until ``needed`` bytes fit; entries in use stay.

    Nothing is removed where the new entry would not fit even so.

    Args:
        folder: folder of the cache's arrays.
        bound: largest total size of all entries in bytes.
        needed: size of the new entry in bytes; 0 only enforces the bound.

    Returns:
        Whether the new entry fits.
    """
    if needed > bound:
        return False
    excess = folder_size(folder) + needed - bound
    missing = needed + SPARE - shutil.disk_usage(folder).free if needed else 0
    wanted = max(excess, missing)
    if wanted <= 0:
        return True
    unused = [entry for entry in stored_entries(folder) if not is_in_use(entry.path)]
    if needed and sum(entry.size for entry in unused) < wanted:
        return False
    removed: list[int] = []
    for entry in unused:
        if wanted <= sum(removed):
            break
        if remove_entry(entry.path):
            logger.debug("removed %s of %s", entry.path, format_size(entry.size))
            removed.append(entry.size)
    if removed:
        logger.info(
            "removed %d entries of %s from the cache (%s) to make room",
            len(removed),
            format_size(sum(removed)),
            SIZE_VARIABLE,
        )
    return excess <= sum(removed)
