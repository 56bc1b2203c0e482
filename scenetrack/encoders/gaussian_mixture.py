"""Gaussian mixture with diagonal covariances: EM, and sums weighted by posteriors.

All products are matrix products in float32. The mean of the sample is subtracted first, so that the
terms x**2 and x do not cancel each other's digits; components for which they still would, as that
of the descriptors of a plain sky, are computed in float64.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray
from onnx import TensorProto
from threadpoolctl import threadpool_limits

from scenetrack.encoders.bag_of_words import BagOfWords
from scenetrack.encoders.region_partition import Cells, sums_by_group
from scenetrack.graphs.builder import GraphBuilder

logger = logging.getLogger(__name__)

# Rows of a block and their posteriors stay in the processor's cache.
_BLOCK = 1024

# Least variance of a component, relative to the sample's variance in that dimension and to its
# largest in any: equal descriptors, as those of a plain sky, have no variance.
_LEAST_VARIANCE, _LEAST_OF_LARGEST = 1e-2, 1e-8

# Standard deviations between a component's mean and the centre up to which float32 is enough: at
# least five digits are left where the terms x**2 and x cancel.
_FAR = 8.0

# Posteriors below exp(-60) of the largest are raised to it: that changes no result, and products
# with the denormal numbers of float32 are many times slower.
_LOWEST = -60.0

# A posterior that float32 finds below exp(-30) of the largest needs no float64: no digit of the
# result would differ.
_IRRELEVANT = -30.0

# EM stops when the mean log-likelihood grows by less.
_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class DiagonalMixture:
    """A mixture of K Gaussians in D dimensions.

    Attributes:
        centre: float32 [D], the mean of the sample.
        weights: float32 [K], above 0, sum 1.
        means: float32 [K, D], relative to ``centre``.
        variances: float32 [K, D], above 0.
    """

    centre: NDArray[np.float32]
    weights: NDArray[np.float32]
    means: NDArray[np.float32]
    variances: NDArray[np.float32]

    @classmethod
    def learn(cls, rows: NDArray[np.float32], components: int, seed: int, iterations: int) -> Self:
        """Fit a mixture by expectation maximisation (EM) from k-means clusters, on one thread.

        The same seed gives the same mixture on any number of cores.

        Args:
            rows: float32 [N, D], finite.
            components: number K of components, at most N.
            seed: seed of the k-means.
            iterations: most EM steps; fewer if the mean log-likelihood grows by less than 0.001.

        Raises:
            InputError: there are fewer descriptors than components.
        """
        clusters = BagOfWords(components, random_state=seed).fit(rows)
        variance = rows.var(axis=0, dtype=np.float64)
        least = np.maximum(_LEAST_VARIANCE * variance, _LEAST_OF_LARGEST * variance.max())
        least = np.where(least > 0, least, 1)
        with threadpool_limits(1):
            mixture = cls._of_clusters(rows, clusters, least)
            previous = -np.inf
            for _ in range(iterations):
                sums, likelihood = mixture.sums(rows)
                mixture = mixture.fitted_to(sums, least)
                if likelihood - previous < _TOLERANCE * len(rows):
                    return mixture
                previous = likelihood
        logger.info("stopped after %d EM iterations before convergence (harmless)", iterations)
        return mixture

    @classmethod
    def _of_clusters(
        cls, rows: NDArray[np.float32], clusters: BagOfWords, least: NDArray[np.float64]
    ) -> Self:
        """Return the mixture whose components are the k-means clusters."""
        size, width = clusters.codebook_.shape
        mixture = cls(
            rows.mean(axis=0, dtype=np.float64).astype(np.float32),
            np.full(size, 1 / size, np.float32),
            np.zeros((size, width), np.float32),
            np.tile(least.astype(np.float32), (size, 1)),
        )
        sums = np.zeros((size, 2 * width + 1))
        nearest = clusters.assign(rows)
        for start in range(0, len(rows), _BLOCK):
            block = _powers(rows[start : start + _BLOCK] - mixture.centre, np.float64)
            sums += sums_by_group(block, nearest[start : start + _BLOCK], size)
        return mixture.fitted_to(sums, least)

    def sums(self, rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
        """Return the sums of ``rows`` float32 [n, D] weighted by posteriors (the E step).

        Returns:
            float64 [K, 2 D + 1], the sums of z, z**2 and 1 weighted by each component's
            posterior, with z the rows relative to ``centre``; and the sum of the rows'
            log-likelihoods without D log(2 pi) / 2 each.
        """
        size, width = self.means.shape
        total, likelihood = np.zeros((size, 2 * width + 1)), 0.0
        for start in range(0, len(rows), _BLOCK):
            shifted = rows[start : start + _BLOCK] - self.centre
            powers = _powers(shifted, np.float32)
            # Rows lie along the second axis: NumPy's maxima and sums are faster down the first.
            shares = self._single_weights @ powers.T
            highest = shares.max(axis=0)
            shares -= highest
            far = shares[self._near :]
            (exact,) = np.nonzero((far > _IRRELEVANT).any(axis=0))
            far_powers = _powers(shifted[exact], np.float64)
            far[:, exact] = self._weights[self._near :] @ far_powers.T - highest[exact]
            np.maximum(shares, _LOWEST, out=shares)
            np.exp(shares, out=shares)
            mass = shares.sum(axis=0)
            likelihood += float((highest + np.log(mass)).sum(dtype=np.float64))
            # A multiplication is several times faster than a division.
            shares *= 1 / mass
            total[self._near :] += far[:, exact] @ far_powers
            far[:, exact] = 0
            total += shares @ powers
        return total, likelihood

    def fitted_to(self, sums: NDArray[np.float64], least: NDArray[np.float64]) -> Self:
        """Return the most likely mixture given ``sums`` float64 [K, 2 D + 1] (the M step).

        A component with a mass of less than one descriptor keeps its mean and variances.

        Args:
            least: float64 [D], lower bounds of the variances.
        """
        first, second, mass = np.split(sums, [self.means.shape[1], 2 * self.means.shape[1]], axis=1)
        held = mass >= 1
        safe = np.where(held, mass, 1)
        averages = first / safe
        squares = np.maximum(second / safe - averages**2, least)
        means = np.where(held, averages, self.means).astype(np.float32)
        variances = np.where(held, squares, self.variances).astype(np.float32)
        # Components in float64 come last, so that each kind is one block of every array.
        order = np.argsort(_are_far(means, variances), kind="stable")
        weights = (safe / safe.sum()).ravel().astype(np.float32)
        return type(self)(self.centre, weights[order], means[order], variances[order])

    @cached_property
    def factors(self) -> tuple[NDArray[np.float64], ...]:
        """Factors that turn sums into gradients, each float64 [K, D].

        With m, s and w a component's mean, standard deviation and weight: m, 2 m,
        m**2 - s**2, 1 / (s sqrt(w)) and 1 / (s**2 sqrt(2 w)).
        """
        means, variances = self.means.astype(np.float64), self.variances.astype(np.float64)
        roots = np.sqrt(self.weights.astype(np.float64))[:, None]
        return (
            means,
            2 * means,
            means**2 - variances,
            1 / (np.sqrt(variances) * roots),
            1 / (np.sqrt(2) * variances * roots),
        )

    def sums_in_graph(self, builder: GraphBuilder, rows: str, cells: Cells) -> str:
        """Add ``sums`` of each cell to the graph.

        Args:
            rows: float32 [m, D], cell after cell.

        Returns:
            float64 [P, K, 2 D + 1].
        """
        shifted = builder.node("Sub", rows, builder.constant("centre", self.centre))
        halves: list[NDArray[Any]] = [
            self._single_weights[: self._near],
            self._weights[self._near :],
        ]
        parts = [weights for weights in halves if len(weights)]
        powers, logs = [], []
        for weights in parts:
            values = _powers_in_graph(builder, shifted, weights.dtype)
            product = builder.node("MatMul", values, builder.constant("weights", weights.T))
            powers.append(values)
            logs.append(builder.node("Cast", product, to=TensorProto.FLOAT))
        posteriors = _softmax_in_graph(builder, builder.node("Concat", *logs, axis=1))
        lengths = builder.constant("parts", np.array([len(weights) for weights in parts]))
        found = builder.node("Split", posteriors, lengths, outputs=len(powers), axis=1)
        shares = (found,) if isinstance(found, str) else found
        sums = [
            cells.products_in_graph(builder, share, values)
            for share, values in zip(shares, powers, strict=True)
        ]
        return builder.node("Concat", *sums, axis=1, name="sums")

    @cached_property
    def _near(self) -> int:
        """Number of components, from the first, that float32 is enough for."""
        far = _are_far(self.means, self.variances)
        return int(np.argmax(far)) if far.any() else len(far)

    @cached_property
    def _weights(self) -> NDArray[np.float64]:
        """[K, 2 D + 1]: the product with z, z**2 and 1 is log(w_k N(z; mean, variance)).

        It lacks the term D log(2 pi) / 2, which is the same for every component.
        """
        means, variances = self.means.astype(np.float64), self.variances.astype(np.float64)
        offsets = (np.log(variances) + means**2 / variances).sum(axis=1) / 2
        constant = np.log(self.weights.astype(np.float64)) - offsets
        return np.concatenate([means / variances, -0.5 / variances, constant[:, None]], axis=1)

    @cached_property
    def _single_weights(self) -> NDArray[np.float32]:
        return self._weights.astype(np.float32)


def _are_far(means: NDArray[np.float32], variances: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which components have means too many deviations from 0 for float32: bool [K]."""
    return np.asarray((np.abs(means) / np.sqrt(variances)).max(axis=1) > _FAR)


def _powers(rows: NDArray[np.float32], dtype: DTypeLike) -> NDArray[Any]:
    """Return z, z**2 and 1 of rows z [n, D], as [n, 2 D + 1] of ``dtype``."""
    width = rows.shape[1]
    powers = np.empty((len(rows), 2 * width + 1), dtype)
    powers[:, :width] = rows
    np.multiply(powers[:, :width], powers[:, :width], out=powers[:, width:-1])
    powers[:, -1] = 1
    return powers


def _powers_in_graph(builder: GraphBuilder, rows: str, dtype: DTypeLike) -> str:
    """Add ``_powers`` to the graph."""
    if dtype == np.float64:
        rows = builder.node("Cast", rows, name="float64", to=TensorProto.DOUBLE)
    both = builder.node("Concat", rows, builder.node("Mul", rows, rows), axis=1)
    pads, one = np.array([0, 0, 0, 1]), np.array(1, dtype)
    return builder.node(
        "Pad", both, builder.constant("pads", pads), builder.constant("one", one), name="powers"
    )


def _softmax_in_graph(builder: GraphBuilder, logs: str) -> str:
    """Add the posteriors float32 [m, K] of log densities to the graph."""
    highest = builder.node("ReduceMax", logs, builder.constant("axis", np.array([1])))
    below = builder.node("Sub", logs, highest)
    lowest = builder.constant("lowest", np.array(_LOWEST, np.float32))
    return builder.node("Softmax", builder.node("Max", below, lowest), axis=1, name="posteriors")
