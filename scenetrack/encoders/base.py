"""What an encoder of local descriptors is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from scenetrack.encoders.checks import check_images
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.system.machine import available_cpus

_Result = TypeVar("_Result")


class LocalEncoder(Protocol):
    """Turns the descriptors of an image, or of regions of it, into vectors of one length.

    Attributes:
        name: how runs and files call it.
    """

    name: ClassVar[str]

    def fit(self, descriptors: NDArray[np.float32], y: None = None) -> Self:
        """Learn from a sample of training ``descriptors`` float32 [N, D]."""

    @property
    def width(self) -> int:
        """Values of one region's encoding."""

    @property
    def preparation(self) -> str:
        """One of ``features.PREPARATIONS``: what an SVM does with the encoding first."""

    def pool(self, rows: NDArray[np.float32], regions: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Encode regions of ONE image.

        Args:
            rows: float32 [n, D], its descriptors.
            regions: bool [R, n], which of them each region holds; they may overlap.

        Returns:
            float32 [R, width], each normalised on its own; zeros where a region is empty.
        """

    def transform(
        self, descriptors: NDArray[np.float32] | Sequence[NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Encode whole images, [n_images, n, D] or one [n_i, D] each: [n_images, width]."""

    def pool_in_graph(self, builder: GraphBuilder, rows: str, regions: NDArray[np.bool_]) -> str:
        """The twin of ``pool``; the regions are a constant, for the grid of an image is fixed."""

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything that was set and learnt, as arrays without objects."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The encoder whose ``to_arrays`` gave ``arrays``."""


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


def in_threads(work: Callable[[int], _Result], count: int) -> list[_Result]:
    """``work`` of each number below ``count``, in order, one thread for each processor.

    Products of matrices then take one thread each: they are too small to be cut further.
    """
    workers = min(available_cpus(), count)
    if workers < 2:
        return [work(index) for index in range(count)]
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, range(count)))
