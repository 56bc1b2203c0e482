"""What an encoder of local descriptors is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from scenetrack.config.encoders import Encoder
from scenetrack.encoders.checks import check_images
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.system.threads import in_threads


class LocalEncoder(TransformerMixin, BaseEstimator, ABC):
    """Turns the descriptors of an image, or of regions of it, into vectors of one length.

    Attributes:
        about: name, kernels, sample size and search space, as settings and help know them.
        explains: whether each descriptor's part in the encoding is that of one visual word.
        learns_occurrences: whether ``learn_occurrences`` is to be called after ``fit``.
    """

    about: ClassVar[Encoder]
    explains: bool = False
    learns_occurrences: bool = False

    @abstractmethod
    def fit(self, descriptors: NDArray[np.float32], y: None = None) -> Self:
        """Learn from a sample of training ``descriptors`` float32 [N, D]."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Values of one region's encoding."""

    @property
    @abstractmethod
    def preparation(self) -> str:
        """One of ``feature_rows.PREPARATIONS``: what an SVM does with the encoding first."""

    @abstractmethod
    def pool(self, rows: NDArray[np.float32], regions: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Encode regions of ONE image.

        Args:
            rows: float32 [n, D], its descriptors.
            regions: bool [R, n], which of them each region holds; they may overlap.

        Returns:
            float32 [R, width], each normalised on its own; zeros where a region is empty.
        """

    @abstractmethod
    def pool_in_graph(self, builder: GraphBuilder, rows: str, regions: NDArray[np.bool_]) -> str:
        """Add ``pool`` to a graph; the regions are constant, for an image's grid is fixed."""

    @abstractmethod
    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything that was set and learnt, as arrays without objects."""

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
            InputError: an image without descriptors, another D than at fit, values not finite.
        """
        return pool_images(self, descriptors)

    def choose_arithmetic(self, rows: NDArray[np.float32]) -> None:
        """Choose faster arithmetic, if there is any, by the sample float32 [N, D] of ``fit``."""

    def learn_occurrences(self, images: Iterable[NDArray[np.float32]]) -> None:
        """Learn in how many of the training images, float32 [n, D] each, every word occurs."""

    def pool_and_assign_in_graph(
        self, builder: GraphBuilder, rows: str, regions: NDArray[np.bool_]
    ) -> tuple[str, str]:
        """Add ``pool`` to a graph, with the words int64 [n] of the rows where it ``explains``."""
        return self.pool_in_graph(builder, rows, regions), ""


def pool_images(
    encoder: LocalEncoder, descriptors: NDArray[np.float32] | Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """What ``encoder.transform`` gives: every image as one region.

    Raises:
        InputError: an image without descriptors, another D than at fit, values not finite.
    """
    check_images(descriptors)

    def encode(index: int) -> NDArray[np.float32]:
        image = descriptors[index]
        return encoder.pool(image, np.ones((1, len(image)), np.bool_))

    return np.concatenate(in_threads(encode, len(descriptors)))
