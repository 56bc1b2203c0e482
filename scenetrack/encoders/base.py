"""Base class of encoders of local descriptors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from scenetrack.config.encoder_registry import Encoder
from scenetrack.encoders.checks import check_images
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.system.threads import in_threads


class LocalEncoder(TransformerMixin, BaseEstimator, ABC):
    """Base of encoders: the descriptors of an image or of its regions become vectors of one length.

    Attributes:
        about: registry entry with name, kernels, sample size and search space.
        explains: whether every descriptor contributes to the encoding as one visual word.
        learns_occurrences: whether ``learn_occurrences`` must be called after ``fit``.
    """

    about: ClassVar[Encoder]
    explains: bool = False
    learns_occurrences: bool = False

    @abstractmethod
    def fit(self, descriptors: NDArray[np.float32], y: None = None) -> Self:
        """Fit the encoder to a sample of training ``descriptors`` float32 [N, D]."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Number of values of one region's encoding."""

    @property
    @abstractmethod
    def preparation(self) -> str:
        """Preparation of encodings for SVMs, one of ``feature_rows.PREPARATIONS``."""

    @abstractmethod
    def pool(self, rows: NDArray[np.float32], regions: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Encode regions of one image.

        Args:
            rows: float32 [n, D], the descriptors of the image.
            regions: bool [R, n], the descriptors of each region; regions may overlap.

        Returns:
            float32 [R, width], each normalised separately; zeros where a region is empty.
        """

    @abstractmethod
    def pool_in_graph(self, builder: GraphBuilder, rows: str, regions: NDArray[np.bool_]) -> str:
        """Add ``pool`` to the graph; regions are constants, as the grid of an image is fixed."""

    @abstractmethod
    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return settings and learnt values as arrays without objects."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the encoder whose ``to_arrays`` gave ``arrays``."""

    def transform(
        self, descriptors: NDArray[np.float32] | Sequence[NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Encode whole images.

        Args:
            descriptors: float32 [n_images, n, D], or one float32 [n_i, D] for each image.

        Returns:
            float32 [n_images, width].

        Raises:
            InputError: an image has no descriptors, D differs from fit, or values are not finite.
            NotFittedError: ``fit`` was not called.
        """
        check_is_fitted(self)
        return pool_images(self, descriptors)

    def choose_arithmetic(self, rows: NDArray[np.float32]) -> None:
        """Choose faster arithmetic, if there is any, from the sample float32 [N, D] of ``fit``."""

    def learn_occurrences(self, images: Iterable[NDArray[np.float32]]) -> None:
        """Count the training images, float32 [n, D] each, that every visual word occurs in."""

    def pool_and_assign_in_graph(
        self, builder: GraphBuilder, rows: str, regions: NDArray[np.bool_]
    ) -> tuple[str, str]:
        """Add ``pool`` to the graph, and the words int64 [n] of the rows if it ``explains``."""
        return self.pool_in_graph(builder, rows, regions), ""


def pool_images(
    encoder: LocalEncoder, descriptors: NDArray[np.float32] | Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Encode every image as one region, as ``encoder.transform`` does.

    Raises:
        InputError: an image has no descriptors, D differs from fit, or values are not finite.
    """
    check_images(descriptors)

    def encode(index: int) -> NDArray[np.float32]:
        image = descriptors[index]
        return encoder.pool(image, np.ones((1, len(image)), np.bool_))

    return np.concatenate(in_threads(encode, len(descriptors)))
