"""The list of what the cache holds, kind by kind, and its deletion."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from scenetrack.cache import SIZE_VARIABLE, Cache, StoredEntry, folder_size, format_size
from scenetrack.cache.entries import describe_entry, remove_entry
from scenetrack.errors import InputError
from scenetrack.system.files import cache_dir, discard, printable

# What other packages keep, by folder. Nothing else in the cache folder is touched: the folder
# that a user chose may hold unrelated files too.
KINDS: Mapping[str, str] = {
    "bundles": "bundles made of runs",
    "checkpoints": "unfinished trainings",
    "demo": "demo images",
    "folders": "links to working folders with special characters in their names",
    "facts": "sizes and digests of image files",
    "forms": "fastest dense forms, as measured",
    "images": "pixels cached by an earlier version",
    "mit8": "downloaded MIT 8-scene images",
    "models": "files downloaded from MLflow",
    "studies": "locks of studies",
    "tensorrt": "TensorRT engines",
}
# Unfinished work, and what would have to be downloaded again: cleared only when named.
KEPT = ("checkpoints", "mit8")
_DIGEST = re.compile(r"[0-9a-f]{16,}")
_DIGITS_SHOWN = 8


@dataclass(frozen=True)
class Holding:
    """A row of the table: ``size`` in bytes; last use in seconds since 1970, 0 if unknown."""

    kind: str
    what: str
    size: int
    used: float


@dataclass(frozen=True)
class Cleared:
    """Result of ``clear``: bytes freed, and the arrays that were kept because they are in use."""

    freed: int
    in_use: tuple[str, ...]


def holdings() -> list[Holding]:
    """Return each array and a summary of each other kind, by kind, most recently used first."""
    arrays = [
        Holding(entry.kind, _what(entry), entry.size, entry.used) for entry in Cache().entries()
    ]
    summaries = [_summary(kind, folder) for kind, folder in _other_folders()]
    return sorted(arrays + summaries, key=lambda row: (row.kind, -row.used, row.what))


def format_holdings(found: list[Holding]) -> str:
    """Return the table that ``scenetrack cache`` prints, with the total and the bound."""
    cells = [("kind", "what", "size", "last used")]
    for holding in found:
        moment = time.localtime(holding.used)
        used = time.strftime("%Y-%m-%d %H:%M", moment) if holding.used else "-"
        cells.append((holding.kind, holding.what, format_size(holding.size), used))
    kind, what, size = (max(len(row[column]) for row in cells) for column in range(3))
    lines = [f"{k:{kind}}  {w:{what}}  {s:>{size}}  {u}" for k, w, s, u in cells]
    cache = Cache()
    arrays = format_size(folder_size(cache.folder))
    bound = f"at most {format_size(cache.bound)}" if cache.bound else "switched off"
    total = format_size(sum(holding.size for holding in found))
    return "\n".join(
        [
            *lines,
            f"total {total} in {printable(cache_dir())}",
            f"arrays {arrays}, {bound} ({SIZE_VARIABLE})",
        ]
    )


def clear(kind: str = "") -> Cleared:
    """Delete everything of ``kind``, or of all kinds but ``KEPT`` if ``kind`` is empty.

    Arrays that a process has open are kept.

    Raises:
        InputError: the cache holds nothing of this kind.
    """
    check_kind(kind)
    freed, in_use = 0, []
    for entry in Cache().entries():
        if kind not in ("", entry.kind):
            continue
        what = f"{entry.kind}: {_what(entry)}"
        if remove_entry(entry.path):
            freed += entry.size
        else:
            in_use.append(what)
    for name, folder in _other_folders():
        if name == kind or (not kind and name not in KEPT):
            before = folder_size(folder)
            _empty(folder)
            freed += before - folder_size(folder)
    return Cleared(freed, tuple(in_use))


def check_kind(kind: str) -> None:
    """Raise InputError unless ``kind`` is empty or the cache holds it."""
    kinds = sorted({holding.kind for holding in holdings()})
    if kind and kind not in kinds:
        raise InputError(
            f"a kind that the cache holds is required ({', '.join(kinds) or 'the cache is empty'})"
            f". Received: {printable(kind)}"
        )


def _other_folders() -> Iterator[tuple[str, Path]]:
    root = cache_dir()
    for kind in KINDS:
        folder = root / kind
        if folder.is_dir() and any(True for _ in _kept_in(folder)):
            yield kind, folder


def _kept_in(folder: Path) -> Iterator[Path]:
    # A lock file is not content, and a process may be waiting for it.
    return (path for path in folder.iterdir() if path.suffix != ".lock")


def _empty(folder: Path) -> None:
    # The target of a link belongs to someone else: only the link itself is deleted.
    paths = [folder] if folder.is_symlink() else list(_kept_in(folder))
    for path in paths:
        try:
            discard(path)
        except OSError as error:
            raise InputError(
                f"a cache that can be changed is required, but {printable(path)} cannot be "
                f"deleted ({error.strerror}): change its permissions"
            ) from error


def _summary(kind: str, folder: Path) -> Holding:
    used = max((path.stat().st_mtime for path in _kept_in(folder)), default=0.0)
    return Holding(kind, KINDS[kind], folder_size(folder), used)


def _what(entry: StoredEntry) -> str:
    """Describe an array by its key, with shortened digests, its shape and its dtype."""
    try:
        about = describe_entry(entry.path)
        words = [f"{name} {_short(str(value))}" for name, value in about["key"].items()]
        shape = " x ".join(str(length) for length in about["shape"])
        return printable(f"{', '.join(words)} ({shape} {about['dtype']})")
    except (AttributeError, KeyError, OSError, TypeError, ValueError):
        return f"damaged ({entry.path.name})"


def _short(value: str) -> str:
    return _DIGEST.sub(lambda digest: digest[0][:_DIGITS_SHOWN], value)
