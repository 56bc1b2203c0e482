"""Archives of named arrays (``.npz``), each stored as one entry of the cache."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping

import numpy as np

from scenetrack.cache import ArraySpec, Cache
from scenetrack.errors import InputError

logger = logging.getLogger(__name__)


def open_archive(kind: str, key: Mapping[str, str]) -> dict[str, np.ndarray] | None:
    """Return the arrays of ``key`` by name, or None if there are none or they are damaged.

    Loading executes nothing: the archive is an ``.npz`` without objects and its checksum is
    verified.
    """
    stored = Cache().open(kind, key)
    if stored is None:
        return None
    with np.load(io.BytesIO(stored.tobytes()), allow_pickle=False) as arrays:
        return dict(arrays)


def store_archive(kind: str, key: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> None:
    """Store the arrays within the cache's bound; if the disk is full, log a warning and go on.

    Args:
        kind: kind of archive, a plain word: the name of its folder.
        key: everything that the arrays depend on.
        arrays: arrays by name, none of dtype object.
    """
    cache = Cache()
    if not cache.bound:
        return
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **dict(arrays))
    content = np.frombuffer(buffer.getbuffer(), np.uint8)
    try:
        cache.store(kind, key, ArraySpec(content.shape, "uint8"), iter([content]))
    except InputError as error:
        logger.warning("%s are not kept: %s", kind, error)
