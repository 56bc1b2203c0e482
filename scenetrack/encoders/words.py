"""Visual words and how often an image shows each of them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from scenetrack.encoders.base import pool_images
from scenetrack.encoders.checks import check_arrays, check_regions, check_width, checked_rows
from scenetrack.encoders.grid import grid_in_graph, steps_per_unit, to_grid
from scenetrack.errors import InputError
from scenetrack.graph import GraphBuilder

logger = logging.getLogger(__name__)

# Distances of a block stay in the processor's cache between the product and the search.
_BLOCK_BYTES = 4 * 2**20

# Twice the product of a descriptor and a word, with the squared length of a word, is below 2**53
# grid steps and so exact: words have up to 2**24 steps, descriptors may be 8 times as long.
_WORD_BITS = 24


class BagOfWords(TransformerMixin, BaseEstimator):
    """Histogram of visual words: Csurka et al., "Visual categorization with bags of keypoints",
    2004.

    Words are the centres of scikit-learn's k-means from randomly drawn descriptors, chosen by
    ``benchmarks/kmeans.py``. The same seed gives the same words on any number of cores.

    Args:
        codebook_size: number K of visual words.
        random_state: seed of the k-means.
        iterations: most Lloyd iterations; fewer where the centres stop moving.

    Attributes:
        codebook_: float32 [K, D], the visual words.
    """

    name: ClassVar[str] = "bag of words"

    def __init__(
        self, codebook_size: int = 1024, random_state: int = 0, iterations: int = 25
    ) -> None:
        self.codebook_size = codebook_size
        self.random_state = random_state
        self.iterations = iterations

    def fit(self, descriptors: NDArray[np.float32], y: None = None) -> Self:
        """Learn the codebook from a sample of ``descriptors`` float32 [N, D], N >= K.

        Raises:
            InputError: fewer descriptors than words, or values that are not finite.
        """
        rows = checked_rows(descriptors)
        if len(rows) < self.codebook_size:
            raise InputError(
                f"a codebook of {self.codebook_size} words needs at least as many descriptors. "
                f"Received: {len(rows)}; choose a smaller codebook_size or more patches or images"
            )
        kmeans = KMeans(
            self.codebook_size,
            init="random",
            n_init=1,
            max_iter=self.iterations,
            random_state=self.random_state,
        )
        # Threads add up their own parts of a centre, in the order in which they finish: one
        # thread makes the codebook a function of the seed alone.
        with threadpool_limits(1), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            kmeans.fit(rows)
        if caught:
            logger.warning(
                "the %d descriptors have fewer distinct values than the %d words asked for: "
                "some words are equal",
                len(rows),
                self.codebook_size,
            )
        self.codebook_ = np.ascontiguousarray(kmeans.cluster_centers_, np.float32)
        return self

    @property
    def width(self) -> int:
        """Values K of a histogram."""
        return len(self.codebook_)

    @property
    def preparation(self) -> str:
        """Histograms that sum to 1 are square-rooted for linear and RBF machines."""
        return "square_root"

    def assign(self, descriptors: NDArray[np.float32]) -> NDArray[np.int64]:
        """The nearest word of each descriptor, the first one of equally near ones.

        Args:
            descriptors: float32 [N, D]; any N, a few MB of distances are held at a time.

        Returns:
            int64 [N], each in [0, K).

        Raises:
            InputError: another D than at fit, or values that are not finite.
        """
        rows = checked_rows(descriptors)
        check_width(rows.shape[1], self.codebook_.shape[1])
        scale, weights, offsets = self._grid()
        step = max(1, _BLOCK_BYTES // (8 * len(offsets)))
        distances = np.empty((min(step, len(rows)), len(offsets)))
        words = np.empty(len(rows), np.int64)
        for start in range(0, len(rows), step):
            part = distances[: min(step, len(rows) - start)]
            np.matmul(to_grid(rows[start : start + step], scale), weights, out=part)
            part += offsets
            words[start : start + step] = np.argmin(part, axis=1)
        return words

    def pool(self, rows: NDArray[np.float32], regions: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Histograms of regions of one image.

        Args:
            rows: float32 [n, D].
            regions: bool [R, n], the descriptors of each region.

        Returns:
            float32 [R, K], each summing to 1; zeros where a region is empty.

        Raises:
            InputError: regions of another length, another D than at fit, values not finite.
        """
        words = self.assign(rows)
        check_regions(regions, len(words))
        size = len(self.codebook_)
        counts = np.stack([np.bincount(words[region], minlength=size) for region in regions])
        totals = np.maximum(regions.sum(axis=1), 1)
        return np.asarray((counts / totals[:, None]).astype(np.float32))

    def transform(
        self, descriptors: NDArray[np.float32] | Sequence[NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Histograms of a batch of images, each summing to 1.

        Args:
            descriptors: float32 [n_images, n, D], or one float32 [n_i, D] per image.

        Returns:
            float32 [n_images, K], in [0, 1].

        Raises:
            InputError: an image without descriptors, another D than at fit, values not finite.
        """
        return pool_images(self, descriptors)

    def pool_in_graph(self, builder: GraphBuilder, rows: str, regions: NDArray[np.bool_]) -> str:
        """The twin of ``pool``, for rows float32 [n, D]: float32 [R, K]."""
        return self.count_in_graph(builder, self.assign_in_graph(builder, rows), regions)

    def assign_in_graph(self, builder: GraphBuilder, rows: str) -> str:
        """The twin of ``assign``: float32 [n, D] to int64 [n]."""
        scale, weights, offsets = self._grid()
        with builder.scope("words"):
            steps = grid_in_graph(builder, rows, scale)
            constants = (
                builder.constant(name, values)
                for name, values in (("weights", weights), ("offsets", offsets))
            )
            distances = builder.node("Gemm", steps, *constants)
            return builder.node("ArgMin", distances, name="nearest", axis=1, keepdims=0)

    def count_in_graph(self, builder: GraphBuilder, words: str, regions: NDArray[np.bool_]) -> str:
        """Histograms float32 [R, K] of the words int64 [n] of one image."""
        size = len(self.codebook_)
        region, member = np.nonzero(regions)
        with builder.scope("histogram"):
            of_regions = builder.node("Gather", words, builder.constant("members", member))
            firsts = builder.constant("firsts", region * size)
            cells = builder.node("Add", of_regions, firsts, name="cells")
            one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
            ones = builder.node(
                "ConstantOfShape", builder.node("Shape", cells), name="ones", value=one
            )
            none = builder.constant("none", np.zeros(len(regions) * size, np.float32))
            counts = builder.node(
                "ScatterElements", none, cells, ones, name="counts", reduction="add"
            )
            shape = builder.constant("shape", np.array([len(regions), size], np.int64))
            totals = np.maximum(regions.sum(axis=1, keepdims=True), 1).astype(np.float32)
            return builder.node(
                "Div", builder.node("Reshape", counts, shape), builder.constant("totals", totals)
            )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """What was learnt, as arrays without objects."""
        return {"codebook": self.codebook_}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The bag of words whose ``to_arrays`` gave ``arrays``; its histograms are the same.

        Raises:
            InputError: an array is missing or has another number of axes.
        """
        check_arrays(arrays, {"codebook": 2}, cls.name)
        words = cls(len(arrays["codebook"]))
        words.codebook_ = np.asarray(arrays["codebook"], np.float32)
        return words

    def _grid(self) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Steps per unit; weights [D, K] and offsets [K] of the words' distances in steps.

        They are of |x - c|^2 without |x|^2, which is the same for every word c.
        """
        longest = float(np.sqrt(np.einsum("kd,kd->k", self.codebook_, self.codebook_).max()))
        scale = steps_per_unit(longest, _WORD_BITS)
        words = to_grid(self.codebook_, scale)
        return scale, np.ascontiguousarray(-2 * words.T), np.einsum("kd,kd->k", words, words)
