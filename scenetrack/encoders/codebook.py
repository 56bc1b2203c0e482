"""Codebook of visual words: k-means, and the exact search for the nearest word."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from scenetrack.encoders.fixed_point import grid_in_graph, steps_per_unit, to_grid
from scenetrack.errors import InputError
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.graphs.runtime import OnnxModel

logger = logging.getLogger(__name__)

# Distances of a block stay in the processor's cache between the product and the search. The
# product of bytes is so fast that calls count: an image's descriptors fit into a few blocks.
_BLOCK_BYTES, _BYTES_BLOCK_BYTES = 2 * 2**20, 8 * 2**20

# Twice the product of a descriptor and a word, with the squared length of a word, is below 2**53
# grid steps and so exact: words have up to 2**24 steps, descriptors may be 8 times as long.
_WORD_BITS = 24

# Bytes times words in whole steps. On processors without 8-bit dot products ONNX Runtime adds two
# products of bytes in 16 bits: 2 * 255 * 64 still fits.
LARGEST_STEP, LARGEST_WORD_STEP = 127, 64
_ZERO = 128
# The few values above this quantile are clipped, so that one outlier does not make the step coarse.
_STEP_QUANTILE = 0.9999


def learn_words(
    rows: NDArray[np.float32], count: int, seed: int, iterations: int
) -> NDArray[np.float32]:
    """Return the cluster centres of k-means, started from random rows: float32 [count, D].

    The same seed gives the same words on any number of cores.

    Args:
        rows: float32 [N, D], finite.
        count: number of words, at most N.
        seed: seed of the random start.
        iterations: most iterations of Lloyd's algorithm.

    Raises:
        InputError: there are fewer rows than words.
    """
    if len(rows) < count:
        raise InputError(
            f"a codebook of {count} words needs at least as many descriptors. "
            f"Received: {len(rows)}; choose a smaller codebook_size or more patches or images"
        )
    kmeans = KMeans(count, init="random", n_init=1, max_iter=iterations, random_state=seed)
    # Threads add up their own parts of a centre, in the order in which they finish: one thread
    # makes the codebook a function of the seed alone.
    with threadpool_limits(1), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        kmeans.fit(rows)
    if caught:
        logger.warning(
            "%d descriptors have fewer distinct values than the %d words of the codebook: "
            "several words are equal",
            len(rows),
            count,
        )
    return np.ascontiguousarray(kmeans.cluster_centers_, np.float32)


def byte_step(rows: NDArray[np.float32]) -> float:
    """Return the smallest power of two of which nearly all values of rows are at most 127."""
    largest = float(np.quantile(np.abs(rows), _STEP_QUANTILE))
    return float(2.0 ** np.ceil(np.log2(largest / LARGEST_STEP))) if largest else 1.0


@dataclass(frozen=True, eq=False)
class Codebook:
    """Visual words with the exact search for the nearest one.

    Attributes:
        words: float32 [K, D].
        step: a power of two if every value of a word is one of at most 64 multiples of
            ``2 * step`` on either side of 0, else 0. Descriptors are then rounded to multiples of
            ``step``, at most 128 below 0 and 127 above, and compared in 8-bit integers.
    """

    words: NDArray[np.float32]
    step: float = 0.0

    def nearest(self, rows: NDArray[np.float32]) -> NDArray[np.int64]:
        """Find the nearest word of each of ``rows`` float32 [n, D], of equally near ones the first.

        A few MB of distances are held at a time.
        """
        words = np.empty(len(rows), np.int64)
        for part in self.parts(len(rows)):
            if self.step:
                scores = self._byte_model.run(rows=rows[part])["scores"]
                np.argmax(scores, axis=1, out=words[part])
            else:
                np.argmin(self.distances(rows[part]), axis=1, out=words[part])
        return words

    def distances(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return |x - c|^2 - |x|^2 of ``rows`` x and words c in squared grid steps: float64 [n, K].

        They are exact whole numbers, which no order of addition can change.
        """
        scale, weights, offsets = self._grid
        distances = to_grid(rows, scale) @ weights
        distances += offsets
        return distances

    def distances_in_graph(self, builder: GraphBuilder, rows: str) -> str:
        """Add ``distances`` to the graph: float32 [n, D] to float64 [n, K]."""
        scale, weights, offsets = self._grid
        steps = grid_in_graph(builder, rows, scale)
        constants = (
            builder.constant(name, values)
            for name, values in (("weights", weights), ("offsets", offsets))
        )
        return builder.node("Gemm", steps, *constants, name="distances")

    def nearest_in_graph(self, builder: GraphBuilder, rows: str) -> str:
        """Add ``nearest`` to the graph: float32 [n, D] to int64 [n]."""
        if self.step:
            scores = self._scores_in_graph(builder, rows)
            return builder.node("ArgMax", scores, name="nearest", axis=1, keepdims=0)
        distances = self.distances_in_graph(builder, rows)
        return builder.node("ArgMin", distances, name="nearest", axis=1, keepdims=0)

    def _scores_in_graph(self, builder: GraphBuilder, rows: str) -> str:
        """Add the similarity of rows float32 [n, D], rounded to bytes, to each word: int32 [n, K].

        With x and c in steps of ``step`` and ``2 * step`` the nearest word has the largest
        x.c - |c|^2. That length joins the product as a few columns of fixed bytes, see
        ``_byte_weights``: a subtraction afterwards would take as long as the product itself.
        """
        step = builder.constant("step", np.array(self.step, np.float32))
        zero = builder.constant("zero", np.array(_ZERO, np.uint8))
        bytes_ = builder.node("QuantizeLinear", rows, step, zero, name="bytes")
        more = len(self._byte_weights) - self.words.shape[1]
        fixed = np.full((1, more), _ZERO + LARGEST_STEP, np.uint8)
        fixed[0, -1] = _ZERO + 1
        count = builder.node("Shape", rows, start=0, end=1)
        shape = builder.node("Concat", count, builder.constant("more", np.array([more])), axis=0)
        columns = builder.node("Expand", builder.constant("fixed", fixed), shape)
        joined = builder.node("Concat", bytes_, columns, axis=1)
        weights = builder.constant("weights", self._byte_weights)
        return builder.node("MatMulInteger", joined, weights, zero, name="nearness")

    @property
    def scale(self) -> float:
        """Grid steps of ``distances`` per unit of a descriptor."""
        return self._grid[0]

    def parts(self, count: int) -> list[slice]:
        """Return slices of ``count`` rows whose distances fit into the processor's cache."""
        block, each = (_BYTES_BLOCK_BYTES, 4) if self.step else (_BLOCK_BYTES, 8)
        at_once = max(1, block // (each * len(self.words)))
        return [slice(start, start + at_once) for start in range(0, count, at_once)]

    @cached_property
    def _grid(self) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Steps per unit; weights [D, K] and offsets [K] of the distances to the words in steps."""
        longest = float(np.sqrt(np.einsum("kd,kd->k", self.words, self.words).max()))
        scale = steps_per_unit(longest, _WORD_BITS)
        words = to_grid(self.words, scale)
        return scale, np.ascontiguousarray(-2 * words.T), np.einsum("kd,kd->k", words, words)

    @cached_property
    def _byte_weights(self) -> NDArray[np.int8]:
        """int8 [D + E, K]: the words in their steps, and below them their negative squared lengths.

        A squared length needs more than a byte, so it is written as E digits: their columns of the
        descriptors are always 127 steps, except for the last one, which is always 1.
        """
        words = np.rint(self.words / np.float32(2 * self.step)).astype(np.int64)
        rest = -np.einsum("kd,kd->k", words, words)
        digits = []
        for _ in range(int(-rest.min()) // (LARGEST_STEP * LARGEST_WORD_STEP) + 1):
            # Rounded to nearest, so that what is left for the ones is at most 63.
            digit = np.clip(np.rint(rest / LARGEST_STEP), -LARGEST_WORD_STEP, 0).astype(np.int64)
            rest = rest - LARGEST_STEP * digit
            digits.append(digit)
        return np.concatenate([words.T, digits, [rest]]).astype(np.int8)

    @cached_property
    def _byte_model(self) -> OnnxModel:
        """``rows`` float32 [n, D] to ``scores`` int32 [n, K], larger for nearer words."""
        builder = GraphBuilder("nearest words")
        rows = builder.input("rows", np.float32, [None, self.words.shape[1]])
        scores = self._scores_in_graph(builder, rows)
        builder.output("scores", scores, np.int32, [None, len(self.words)])
        return OnnxModel(builder.build({}).SerializeToString(), device="cpu", threads=1)
