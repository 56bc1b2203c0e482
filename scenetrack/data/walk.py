"""Image files below a folder: training and prediction find the same ones."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from scenetrack.data.decoding import IMAGE_SUFFIXES, has_image_signature


def image_files(folder: str | Path, passed_over: Counter[str]) -> Iterator[Path]:
    """Yield the image files of a folder in the order of their names, then those of its subfolders.

    Links are followed, but not in a circle. Hidden files and folders are passed over.

    Args:
        folder: where to look.
        passed_over: counts by kind what is no image; added to.

    Raises:
        OSError: a folder cannot be listed.
    """
    root = Path(folder)
    # A link to a folder that holds ``folder`` leads in a circle as well.
    above = frozenset(_identity(place) for place in (root, *Path(os.path.realpath(root)).parents))
    yield from _below(root, passed_over, above)


def is_image_file(path: str | Path) -> bool:
    """Return whether a file has the suffix of an image, or else the first bytes of one.

    A link to nothing is an image by its suffix, so that it is reported and not silently ignored.
    """
    if os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES:
        return os.path.isfile(path) or (os.path.islink(path) and not os.path.exists(path))
    return os.path.isfile(path) and has_image_signature(path)


def normalised(name: str) -> str:
    """Return a name in Unicode's form NFC: Macs write ``é`` as two characters, others as one."""
    return unicodedata.normalize("NFC", name)


def kind_of(path: Path) -> str:
    """Return the kind under which what is passed over is counted."""
    if path.name.startswith("."):
        return "hidden"
    if path.is_dir():
        return "folders"
    return path.suffix.lower() or "files without suffix"


def _below(
    folder: Path, passed_over: Counter[str], above: frozenset[tuple[int, int]]
) -> Iterator[Path]:
    with os.scandir(folder) as listed:
        entries = sorted(listed, key=lambda entry: normalised(entry.name))
    folders = []
    for entry in entries:
        if entry.name.startswith("."):
            passed_over["hidden"] += 1
        elif entry.is_dir():
            folders.append(folder / entry.name)
        elif is_image_file(folder / entry.name):
            yield folder / entry.name
        else:
            passed_over[kind_of(folder / entry.name)] += 1
    for path in folders:
        identity = _identity(path)
        if identity in above:
            passed_over["links in a circle"] += 1
        else:
            yield from _below(path, passed_over, above | {identity})


def _identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
