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

# What other rooms keep, by folder. Nothing else of the cache folder is looked at: a user may
# have named one that holds other things too.
KINDS: Mapping[str, str] = {
    "bundles": "bundles made of runs",
    "checkpoints": "unfinished trainings",
    "demo": "demo images",
    "facts": "what is known of image files",
    "forms": "fastest dense forms",
    "images": "pixels kept by an earlier version",
    "mit8": "downloaded MIT 8-scene images",
    "models": "files fetched from MLflow",
    "studies": "locks of studies",
    "tensorrt": "engines of TensorRT",
}
# Lost work, and what only the network gives back: cleared when named, never along with the rest.
KEPT = ("checkpoints", "mit8")
_DIGEST = re.compile(r"[0-9a-f]{16,}")
_DIGITS_SHOWN = 8


@dataclass(frozen=True)
class Holding:
    """A line of the table: ``size`` in bytes, ``used`` in seconds since 1970 (0: not known)."""

    kind: str
    what: str
    size: int
    used: float


@dataclass(frozen=True)
class Cleared:
    """What ``clear`` did: bytes freed, and the arrays that a process has open and that stay."""

    freed: int
    in_use: tuple[str, ...]


def holdings() -> list[Holding]:
    """Every array, and a line for each other kind, by kind and the most recently used first."""
    arrays = [
        Holding(entry.kind, _what(entry), entry.size, entry.used) for entry in Cache().entries()
    ]
    others = [_summary(kind, folder) for kind, folder in _other_folders()]
    return sorted(arrays + others, key=lambda holding: (holding.kind, -holding.used, holding.what))


def format_holdings(found: list[Holding]) -> str:
    """The table that ``scenetrack cache`` prints, with the total and the bound."""
    cells = [("kind", "what", "size", "last used")]
    for holding in found:
        moment = (
            time.strftime("%Y-%m-%d %H:%M", time.localtime(holding.used)) if holding.used else "-"
        )
        cells.append((holding.kind, holding.what, format_size(holding.size), moment))
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
    """Delete what is kept of ``kind``, or of all but ``KEPT`` where it is empty.

    Arrays that a process has open stay.

    Raises:
        InputError: nothing of this kind is in the cache.
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
    """Raise InputError unless ``kind`` is empty or in the cache."""
    there = sorted({holding.kind for holding in holdings()})
    if kind and kind not in there:
        raise InputError(
            f"a kind that the cache holds is required ({', '.join(there) or 'it is empty'}). "
            f"Received: {printable(kind)}"
        )


def _other_folders() -> Iterator[tuple[str, Path]]:
    root = cache_dir()
    for kind in KINDS:
        folder = root / kind
        if folder.is_dir() and any(True for _ in _kept_in(folder)):
            yield kind, folder


def _kept_in(folder: Path) -> Iterator[Path]:
    # A lock is no content, and a process may be waiting for it.
    return (path for path in folder.iterdir() if path.suffix != ".lock")


def _empty(folder: Path) -> None:
    # A link leads to what someone keeps elsewhere: of it only the link is ours.
    places = [folder] if folder.is_symlink() else list(_kept_in(folder))
    for path in places:
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
    """An array in words: its key, digests cut short, and its shape."""
    try:
        about = describe_entry(entry.path)
        words = [f"{name} {_short(str(value))}" for name, value in about["key"].items()]
        shape = " x ".join(str(length) for length in about["shape"])
        return printable(f"{', '.join(words)} ({shape} {about['dtype']})")
    except (AttributeError, KeyError, OSError, TypeError, ValueError):
        return f"damaged ({entry.path.name})"


def _short(value: str) -> str:
    return _DIGEST.sub(lambda digest: digest[0][:_DIGITS_SHOWN], value)
