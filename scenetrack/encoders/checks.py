"""Checks of the arrays that encoders take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenetrack.errors import InputError


def checked_rows(descriptors: NDArray[Any]) -> NDArray[np.float32]:
    """Return ``descriptors`` as contiguous float32 [N, D].

    Raises:
        InputError: the number of axes is not 2, or values are not finite.
    """
    rows = np.ascontiguousarray(descriptors, dtype=np.float32)
    if rows.ndim != 2:
        raise InputError(f"descriptors must be an array [N, D]. Received: shape {rows.shape}")
    if not np.isfinite(rows).all():
        raise InputError(
            "descriptors must be finite. Received: NaN or infinity; check the network's layer"
        )
    return rows


def check_width(received: int, required: int) -> None:
    """Raise InputError if a descriptor has another number of values than at fit."""
    if received != required:
        raise InputError(
            f"descriptors must have {required} values, as at fit. Received: {received}"
        )


def check_images(descriptors: NDArray[Any] | Sequence[NDArray[Any]]) -> None:
    """Raise InputError if there are no images, or an image has no descriptors.

    Args:
        descriptors: [n_images, n, D], or one [n_i, D] for each image.
    """
    counts = [len(image) for image in descriptors]
    if not counts or not all(counts):
        missing = f"image {counts.index(0)} has none" if counts else "no images"
        raise InputError(f"every image needs at least one descriptor. Received: {missing}")


def check_regions(regions: NDArray[np.bool_], count: int) -> None:
    """Raise InputError unless ``regions`` has the shape [R, count] with R > 0."""
    if regions.ndim != 2 or not len(regions) or regions.shape[1] != count:
        raise InputError(
            f"regions must be an array [R, {count}], one column for each descriptor. "
            f"Received: shape {regions.shape}"
        )
