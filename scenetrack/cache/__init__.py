"""Disk cache of large arrays: memory-mapped, checksummed, shared by processes, bounded in size."""

from scenetrack.cache.arrays import ARRAYS, Cache
from scenetrack.cache.entries import ArraySpec
from scenetrack.cache.eviction import StoredEntry
from scenetrack.cache.sizes import SIZE_VARIABLE, chosen_bound, folder_size, format_size, parse_size

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
