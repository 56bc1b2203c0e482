"""Sizes in bytes: the bound of the cache, their text forms, and the size of a folder."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from scenetrack.errors import InputError
from scenetrack.system.files import printable

SIZE_VARIABLE = "SCENETRACK_CACHE_SIZE"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)b?|b)?", re.IGNORECASE)


def chosen_bound() -> int | None:
    """Return the bytes that ``SCENETRACK_CACHE_SIZE`` allows, or None if it is not set.

    Raises:
        InputError: the variable is not a size.
    """
    text = os.environ.get(SIZE_VARIABLE, "").strip()
    return parse_size(text) if text else None


def parse_size(text: str) -> int:
    """Return the bytes of a size such as ``20GB``, ``1.5 TB``, ``512MiB`` or ``0``.

    Raises:
        InputError: ``text`` is not a size.
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
    """Return ``size``, in bytes, as text with a unit: ``1.9 GB``; 1 GB is 10^9 bytes."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def folder_size(path: Path) -> int:
    """Return the total bytes of all files at or below ``path``; links are not followed."""
    total = 0
    for file in (path, *path.rglob("*")):
        try:
            status = file.lstat()
        except OSError:
            continue  # another process removed it
        if not stat.S_ISDIR(status.st_mode):
            total += status.st_size
    return total
