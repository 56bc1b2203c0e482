"""Dense SIFT as a scikit-learn transformer, for programs that want no run."""

from __future__ import annotations

from typing import Any, Self

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
        grid_: geometry and colour of the descriptors.
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
            ConfigError: a parameter is out of range, or a descriptor is larger than the image.
        """
        images = _checked(images)
        settings = {**self.get_params(), "bin_sizes": tuple(self.bin_sizes)}
        HandcraftedConfig(image_size=images.shape[1], **settings)  # the ranges of the stage
        self.grid_ = SiftGrid(images.shape[1], **settings)
        self.positions_ = self.grid_.positions
        self._open()
        return self

    def _open(self) -> None:
        self.model_ = OnnxModel(sift_graph(self.grid_, {}).SerializeToString(), device="cpu")

    def __getstate__(self) -> dict[str, Any]:
        # A session of ONNX Runtime cannot be copied or sent to another process.
        return {k: v for k, v in super().__getstate__().items() if k != "model_"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "grid_" in state:
            self._open()

    def transform(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Compute the descriptors uint8 [N, n, D] of images uint8 [N, S, S, 3]."""
        check_is_fitted(self)
        images = _checked(images)
        values = self.model_.predict(images)["descriptors"]
        return np.asarray(values).reshape(len(images), len(self.positions_), self.grid_.width)


def _checked(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    images = np.asarray(images)
    square = images.ndim == 4 and images.shape[1] == images.shape[2] and images.shape[3] == 3
    if images.dtype != np.uint8 or not square:
        raise InputError(
            "images must be an array uint8 [N, S, S, 3]. Received: "
            f"{images.dtype} {list(images.shape)}"
        )
    return images
