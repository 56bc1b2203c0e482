"""Named arrays kept together in one entry of the cache: a network's file, an encoder's parts."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping

import numpy as np

from scenetrack.cache import ArraySpec, Cache
from scenetrack.errors import InputError

logger = logging.getLogger(__name__)


def open_archive(kind: str, key: Mapping[str, str]) -> dict[str, np.ndarray] | None:
    """The arrays of ``key`` by name; None where there are none, or damaged ones.

    Nothing in them can execute: they are an ``.npz`` without objects, whose checksum is compared.
    """
    stored = Cache().open(kind, key)
    if stored is None:
        return None
    with np.load(io.BytesIO(stored.tobytes()), allow_pickle=False) as arrays:
        return dict(arrays)


def store_archive(kind: str, key: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> None:
    """Keep the arrays, within the cache's bound; where the disk has no room, say so and go on.

    Args:
        kind: a plain word: the folder that they are in.
        key: all that they depend on.
        arrays: without objects.
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
