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
