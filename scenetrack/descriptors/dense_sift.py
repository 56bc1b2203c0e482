"""Dense SIFT as a scikit-learn transformer, for programs that want no run."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from scenetrack.config import HandcraftedConfig
from scenetrack.descriptors.sift import SiftGrid, sift_graph
from scenetrack.errors import InputError
from scenetrack.graphs.runtime import OnnxModel


class DenseSift(TransformerMixin, BaseEstimator):
    """Dense SIFT of square images through ONNX Runtime; ``fit`` only learns their size.

    Args:
        step: pixels between neighbouring points of the grid.
        bin_sizes: sides in pixels of a spatial bin, one for each scale.
        colour: "grey" or "opponent".
        smoothing: standard deviation in pixels of the blur before gradients; 0: none.

    Attributes:
        positions_: float32 [n, 2], centres (y, x) of the descriptors in [0, 1].
    """

    def __init__(
        self,
        step: int = HandcraftedConfig.step,
        bin_sizes: tuple[int, ...] = HandcraftedConfig.bin_sizes,
        colour: str = HandcraftedConfig.colour,
        smoothing: float = HandcraftedConfig.smoothing,
    ) -> None:
        self.step = step
        self.bin_sizes = bin_sizes
        self.colour = colour
        self.smoothing = smoothing

    def fit(self, images: NDArray[np.uint8], y: None = None) -> Self:
        """Prepare the graph for images of this size, uint8 [N, S, S, 3].

        Raises:
            ConfigError: a descriptor is larger than the image.
        """
        _check(images)
        grid = SiftGrid(
            images.shape[1], self.step, tuple(self.bin_sizes), self.colour, self.smoothing
        )
        self.positions_ = grid.positions
        self.model_ = OnnxModel(sift_graph(grid, {}).SerializeToString(), device="cpu")
        return self

    def transform(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Compute the descriptors uint8 [N, n, D] of images uint8 [N, S, S, 3]."""
        check_is_fitted(self)
        _check(images)
        values = self.model_.predict(images)["descriptors"]
        return np.asarray(values).reshape(len(images), len(self.positions_), -1)


def _check(images: NDArray[np.uint8]) -> None:
    square = images.ndim == 4 and images.shape[1] == images.shape[2] and images.shape[3] == 3
    if images.dtype != np.uint8 or not square:
        raise InputError(
            "images must be an array uint8 [N, S, S, 3]. Received: "
            f"{images.dtype} {list(images.shape)}"
        )
