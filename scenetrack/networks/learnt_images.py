"""The record, inside a ``.keras`` file, of the training images that its network has learnt.

A network knows its training images by heart, also where their labels are random. Whoever takes it
later has to judge by other images, and the file itself says which those are.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_MEMBER = "scenetrack/learnt_images.npy"
_HEX_DIGITS = 16


def image_numbers(digests: Sequence[str]) -> NDArray[np.uint64]:
    """Return the first 64 bits of SHA-256 digests in hex: uint64 [N]."""
    return np.array([int(digest[:_HEX_DIGITS], 16) for digest in digests], np.uint64)


def record_learnt_images(path: Path, digests: Sequence[str]) -> None:
    """Add to a ``.keras`` file, which is a zip archive, the images that its network has learnt."""
    buffer = io.BytesIO()
    np.save(buffer, np.unique(image_numbers(digests)), allow_pickle=False)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(_MEMBER, buffer.getvalue())


def learnt_images(path: Path) -> NDArray[np.uint64] | None:
    """Return the numbers of the images that a ``.keras`` file's network has learnt, ascending.

    None where the file does not say: it was not written by this package, or by an older version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(_MEMBER)
        numbers = np.load(io.BytesIO(content), allow_pickle=False)
    except (KeyError, OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    is_record = isinstance(numbers, np.ndarray) and numbers.dtype == np.uint64
    return np.unique(numbers) if is_record and numbers.ndim == 1 else None
