"""Images of a data set as one array of squares, computed once and cached."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from scenetrack.cache import ArraySpec, Cache
from scenetrack.data.decoding import PIXELS_VERSION, open_image, resized, unreadable, upright_rgb
from scenetrack.data.decoding_threads import map_in_threads, progress_bar
from scenetrack.data.image_facts import examine_images, read_unchanged
from scenetrack.errors import DataError

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 2**25


def load_images(
    paths: Sequence[Path], size: int, digests: Sequence[str] | None = None
) -> np.ndarray:
    """Return the images resized to squares: uint8 [N, size, size, 3], RGB, read-only.

    The aspect ratio is not kept. The filter is Pillow's bilinear one, which antialiases. The array
    is memory-mapped from the cache, keyed by the files' contents and ``size``: it takes no more
    memory than the pages in use, and is computed only once.

    Args:
        paths: files, N of them.
        size: side S in pixels.
        digests: SHA-256 of the files, which they had when their data set was loaded. None: the
            files are examined now.

    Raises:
        DataError: an image cannot be decoded, or changes while it is read.
        InputError: the cache cannot be written, or the disk is full.
    """
    spec = ArraySpec((len(paths), size, size, 3), "uint8")
    if not paths:
        empty = np.empty(spec.shape, np.uint8)
        empty.flags.writeable = False
        return empty
    digests = _digests(paths) if digests is None else digests
    cache, key = Cache(), _pixels_key(digests, size)
    images = cache.open("images", key)
    if images is None:
        return cache.store("images", key, spec, _pixel_blocks(paths, digests, size))
    logger.info("reusing %d images at %d px from %s", len(paths), size, cache.folder)
    return images


def _digests(paths: Sequence[Path]) -> list[str]:
    facts = examine_images(paths)
    for path, found in zip(paths, facts, strict=True):
        if found.problem:
            raise DataError(unreadable(path, found.problem))
    return [found.digest for found in facts]


def _pixels_key(digests: Sequence[str], size: int) -> dict[str, str]:
    return {
        "size": f"{size} px",
        "contents": hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        "version": PIXELS_VERSION,
    }


def _pixel_blocks(paths: Sequence[Path], digests: Sequence[str], size: int) -> Iterator[np.ndarray]:
    """Yield the resized images in blocks uint8 [b, size, size, 3] of about 32 MB.

    Raises:
        DataError: a file's content is not that of its digest, under which the pixels are kept.
    """
    count = max(1, _BLOCK_BYTES // (3 * size * size))
    files = list(zip(paths, digests, strict=True))

    def read(file: tuple[Path, str]) -> np.ndarray:
        return resized(upright_rgb(open_image(read_unchanged(*file))), size)

    with progress_bar(len(paths), f"reading images at {size} px") as progress:
        for start in range(0, len(files), count):
            yield np.stack(map_in_threads(read, files[start : start + count], progress))
