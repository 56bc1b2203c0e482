"""Spatial pyramids: encodings of the regions of an image, concatenated."""

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
    """Return rows and columns of a level such as "2x2" or "3x1".

    Raises:
        InputError: the level has another form, or more than 99 rows or columns.
    """
    match = re.fullmatch(r"([1-9]\d?)x([1-9]\d?)", level)
    if match is None:
        raise InputError(
            "a level of a pyramid must be ROWSxCOLUMNS, such as 1x1, 2x2 or 3x1. "
            f"Received: {level!r}"
        )
    return int(match[1]), int(match[2])


def cells(levels: Sequence[str], positions: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which descriptors lie in which cell of a pyramid.

    Args:
        levels: at least one level, such as "1x1" and "2x2".
        positions: [n, 2], centres (y, x) of the descriptors relative to the image size, in [0, 1].
            A centre on the border of two cells is in the lower or right one.

    Returns:
        bool [R, n], level by level, each row by row.

    Raises:
        InputError: there are no levels, or a level or the positions have another form.
    """
    if not levels:
        raise InputError("a pyramid needs at least one level, such as 1x1. Received: none")
    points = np.asarray(positions, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not ((points >= 0) & (points <= 1)).all():
        raise InputError(
            "positions must be an array [n, 2] of (y, x) in [0, 1]. "
            f"Received: shape {points.shape}" + _range(points)
        )
    regions = []
    for rows, columns in map(parse_level, levels):
        last = np.array([rows - 1, columns - 1])
        at = np.minimum(np.floor(points * (last + 1)), last).astype(np.int64)
        cell = at[:, 0] * columns + at[:, 1]
        regions.append(cell == np.arange(rows * columns)[:, None])
    return np.concatenate(regions)


def _range(values: NDArray[np.float64]) -> str:
    return f" from {values.min():.3g} to {values.max():.3g}" if values.size else ""


class SpatialPyramid(TransformerMixin, BaseEstimator):
    """Concatenated encodings of an image's regions: Lazebnik, Schmid and Ponce, "Beyond bags of
    features", 2006.

    A descriptor is encoded once, however many regions hold it. Unlike in the paper, every region is
    normalised separately and all have the same weight: levels 1x1, 2x2, 4x4 weigh 1/21, 4/21 and
    16/21 of the kernel, where the paper's weigh 1/4, 1/4 and 1/2.
    If every region sums to 1 the result does, and if every region has length 1 the result has.
    A cell without any descriptors of the grid stays zero in every image and has no weight.

    Args:
        encoder: encoder of the regions; ``fit`` fits it.
        levels: levels such as ("1x1", "2x2"), rows x columns.
        positions: float32 [n, 2], positions (y, x) of the descriptors' centres relative to the
            image size, in [0, 1].
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
        """bool [R, n], the descriptors of each region."""
        return cells(self.levels, self.positions)

    @property
    def width(self) -> int:
        """Number of values of an image's encoding, R times the encoder's."""
        return self.encoder.width * sum(
            rows * columns for rows, columns in map(parse_level, self.levels)
        )

    @property
    def share(self) -> np.float32:
        """Factor of each region's encoding."""
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
            InputError: there are no images, or the encoder refuses the descriptors.
        """
        check_images(descriptors)
        regions, share = self.regions, self.share

        def encode(index: int) -> NDArray[np.float32]:
            return self.encoder.pool(descriptors[index], regions).ravel() * share

        return np.stack(in_threads(encode, len(descriptors)))

    def join_in_graph(self, builder: GraphBuilder, pooled: str) -> str:
        """Add the joining of pooled regions to the graph: float32 [R, width] to [R * width]."""
        with builder.scope("pyramid"):
            flat = builder.node(
                "Reshape", pooled, builder.constant("shape", np.array([-1], np.int64))
            )
            if self.share == 1:
                return flat
            return builder.node("Mul", flat, builder.constant("share", np.array(self.share)))

    def to_graph(self, builder: GraphBuilder, descriptors: str) -> str:
        """Add ``transform`` of one image to the graph: float32 [n, D] to float32 [R * width]."""
        pooled = self.encoder.pool_in_graph(builder, descriptors, self.regions)
        return self.join_in_graph(builder, pooled)
