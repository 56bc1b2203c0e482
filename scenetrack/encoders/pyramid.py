"""Spatial pyramids: the regions of an image are encoded on their own and joined."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from scenetrack.encoders.base import LocalEncoder
from scenetrack.encoders.checks import check_images
from scenetrack.errors import InputError
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.system.threads import in_threads


def parse_level(level: str) -> tuple[int, int]:
    """Rows and columns of a level such as "2x2" or "3x1".

    Raises:
        InputError: it is not written like that, or has more than 99 rows or columns.
    """
    match = re.fullmatch(r"([1-9]\d?)x([1-9]\d?)", level)
    if match is None:
        raise InputError(
            "a level of a pyramid must be ROWSxCOLUMNS, such as 1x1, 2x2 or 3x1. "
            f"Received: {level!r}"
        )
    return int(match[1]), int(match[2])


def cells(levels: Sequence[str], positions: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which descriptors lie in which cell of a pyramid.

    Args:
        levels: of at least one, such as "1x1" and "2x2".
        positions: [n, 2], centres (y, x) relative to the image, in [0, 1]. A centre on the line
            between two cells is in the lower or right one.

    Returns:
        bool [R, n], level by level, each row by row.

    Raises:
        InputError: no levels, one that cannot be read, or other positions.
    """
    if not levels:
        raise InputError("a pyramid needs at least one level, such as 1x1. Received: none")
    places = np.asarray(positions, np.float64)
    if places.ndim != 2 or places.shape[1] != 2 or not ((places >= 0) & (places <= 1)).all():
        raise InputError(
            "positions must be an array [n, 2] of centres (y, x) in [0, 1]. "
            f"Received: shape {places.shape}" + _range(places)
        )
    found = []
    for rows, columns in map(parse_level, levels):
        last = np.array([rows - 1, columns - 1])
        at = np.minimum(np.floor(places * (last + 1)), last).astype(np.int64)
        cell = at[:, 0] * columns + at[:, 1]
        found.append(cell == np.arange(rows * columns)[:, None])
    return np.concatenate(found)


def _range(values: NDArray[np.float64]) -> str:
    return f" from {values.min():.3g} to {values.max():.3g}" if values.size else ""


class SpatialPyramid(TransformerMixin, BaseEstimator):
    """Encodings of an image's regions, joined: Lazebnik, Schmid and Ponce, "Beyond bags of
    features", 2006.

    A descriptor is looked at once, however many regions hold it. Every region is normalised on
    its own and then weighs the same, so that a level of more cells weighs more, as in the paper.
    Where every region sums to 1 the whole does, and where every region has length 1 the whole has.
    A cell in which the grid has no descriptors stays zero, in every image, and takes no share.

    Args:
        encoder: of the regions; ``fit`` fits it.
        levels: such as ("1x1", "2x2"), rows x columns.
        positions: float32 [n, 2], centres (y, x) of an image's descriptors relative to it, in
            [0, 1].
    """

    def __init__(
        self, encoder: LocalEncoder, levels: Sequence[str], positions: NDArray[np.float32]
    ) -> None:
        self.encoder = encoder
        self.levels = levels
        self.positions = positions

    def fit(self, descriptors: NDArray[np.float32], y: None = None) -> Self:
        """Fit the encoder to a sample of ``descriptors`` float32 [N, D], of any regions."""
        self.encoder.fit(descriptors)
        return self

    @property
    def regions(self) -> NDArray[np.bool_]:
        """bool [R, n], which descriptors each region holds."""
        return cells(self.levels, self.positions)

    @property
    def width(self) -> int:
        """Values of an image's encoding, R times the encoder's."""
        return self.encoder.width * sum(
            rows * columns for rows, columns in map(parse_level, self.levels)
        )

    @property
    def share(self) -> np.float32:
        """What each region is multiplied by."""
        filled = int(self.regions.any(axis=1).sum())
        is_histogram = self.encoder.preparation == "square_root"
        return np.float32(1 / filled if is_histogram else 1 / np.sqrt(filled))

    def transform(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Encode images.

        Args:
            descriptors: float32 [n_images, n, D], in the order of the positions.

        Returns:
            float32 [n_images, R * width of the encoder].

        Raises:
            InputError: no images, or what the encoder refuses.
        """
        check_images(descriptors)
        regions, share = self.regions, self.share

        def encode(index: int) -> NDArray[np.float32]:
            return self.encoder.pool(descriptors[index], regions).ravel() * share

        return np.stack(in_threads(encode, len(descriptors)))

    def join_in_graph(self, builder: GraphBuilder, pooled: str) -> str:
        """The encoding float32 [R * width] of the pooled regions float32 [R, width]."""
        with builder.scope("pyramid"):
            flat = builder.node(
                "Reshape", pooled, builder.constant("shape", np.array([-1], np.int64))
            )
            if self.share == 1:
                return flat
            return builder.node("Mul", flat, builder.constant("share", np.array(self.share)))

    def to_graph(self, builder: GraphBuilder, descriptors: str) -> str:
        """The twin of ``transform`` for one image: float32 [n, D] to float32 [R * width]."""
        pooled = self.encoder.pool_in_graph(builder, descriptors, self.regions)
        return self.join_in_graph(builder, pooled)
