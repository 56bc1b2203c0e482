"""A mixture of Gaussians with diagonal covariances, fitted to descriptors and summed over them.

Every product is one of matrices in float32. The sample's mean is taken off first, so that x**2
and x do not cancel each other's digits.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from scenetrack.encoders.cells import sums_by_group
from scenetrack.encoders.words import BagOfWords
from scenetrack.graph import GraphBuilder

logger = logging.getLogger(__name__)

# Rows of a block and their posteriors stay in the processor's cache.
_BLOCK = 1024

# Least variance of a component, as a share of the sample's in that dimension and of its largest in
# any: descriptors that are all equal, as those of a plain sky, have none.
_LEAST_VARIANCE, _LEAST_OF_LARGEST = 1e-2, 1e-8

# Posteriors below exp(-60) of the largest count as that: they change nothing, and products with
# what float32 can hold below that are many times slower.
_LOWEST = -60.0

# The fit stops when the mean log-likelihood grows by less.
_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class DiagonalMixture:
    """K Gaussians in D dimensions.

    Attributes:
        centre: float32 [D], the mean of the sample.
        weights: float32 [K], above 0, sum 1.
        means: float32 [K, D], measured from ``centre``.
        variances: float32 [K, D], above 0.
    """

    centre: NDArray[np.float32]
    weights: NDArray[np.float32]
    means: NDArray[np.float32]
    variances: NDArray[np.float32]

    @classmethod
    def learn(cls, rows: NDArray[np.float32], components: int, seed: int, iterations: int) -> Self:
        """Expectation maximisation from the clusters of k-means, on one thread.

        The same seed gives the same mixture on any number of cores.

        Args:
            rows: float32 [N, D], finite.
            components: K, at most N.
            seed: of the k-means.
            iterations: most steps; fewer where the mean log-likelihood grows by less than 0.001.

        Raises:
            InputError: fewer descriptors than components.
        """
        words = BagOfWords(components, random_state=seed).fit(rows)
        variance = rows.var(axis=0, dtype=np.float64)
        least = np.maximum(_LEAST_VARIANCE * variance, _LEAST_OF_LARGEST * variance.max())
        least = np.where(least > 0, least, 1)
        with threadpool_limits(1):
            mixture = cls._of_clusters(rows, words, least)
            before = -np.inf
            for _ in range(iterations):
                sums, likelihood = mixture.sums(rows)
                mixture = mixture.fitted_to(sums, least)
                if likelihood - before < _TOLERANCE * len(rows):
                    return mixture
                before = likelihood
        logger.info("the mixture still moved after %d steps, which is no harm", iterations)
        return mixture

    @classmethod
    def _of_clusters(
        cls, rows: NDArray[np.float32], words: BagOfWords, least: NDArray[np.float64]
    ) -> Self:
        """The mixture whose components are the clusters of ``words``."""
        size, width = words.codebook_.shape
        mixture = cls(
            rows.mean(axis=0, dtype=np.float64).astype(np.float32),
            np.full(size, 1 / size, np.float32),
            np.zeros((size, width), np.float32),
            np.tile(least.astype(np.float32), (size, 1)),
        )
        sums = np.zeros((size, 2 * width + 1))
        nearest = words.assign(rows)
        for start in range(0, len(rows), _BLOCK):
            block = mixture._powers(rows[start : start + _BLOCK]).astype(np.float64)
            sums += sums_by_group(block, nearest[start : start + _BLOCK], size)
        return mixture.fitted_to(sums, least)

    def sums(self, rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
        """What the components hold of ``rows`` float32 [n, D].

        Returns:
            float64 [K, 2 D + 1], the sums of z, z**2 and 1 weighted by each component's
            posterior, with z the rows from ``centre``; and the sum of the rows'
            log-likelihoods without D log(2 pi) / 2 each.
        """
        size, width = self.means.shape
        total, likelihood = np.zeros((size, 2 * width + 1)), 0.0
        for start in range(0, len(rows), _BLOCK):
            powers = self._powers(rows[start : start + _BLOCK])
            # Rows lie along the second axis: NumPy's maxima and sums are faster down the first.
            shares = self._weights @ powers.T
            highest = shares.max(axis=0)
            shares -= highest
            np.maximum(shares, _LOWEST, out=shares)
            np.exp(shares, out=shares)
            mass = shares.sum(axis=0)
            likelihood += float((highest + np.log(mass)).sum(dtype=np.float64))
            # Dividing these is the same as dividing the shares, and less work.
            powers /= mass[:, None]
            total += shares @ powers
        return total, likelihood

    def fitted_to(self, sums: NDArray[np.float64], least: NDArray[np.float64]) -> Self:
        """The most likely mixture given ``sums`` float64 [K, 2 D + 1] (the M step).

        A component that holds less than one descriptor stays where it is.

        Args:
            least: float64 [D], the least variances.
        """
        first, second, mass = np.split(sums, [self.means.shape[1], 2 * self.means.shape[1]], axis=1)
        held = mass >= 1
        safe = np.where(held, mass, 1)
        means = first / safe
        variances = np.maximum(second / safe - means**2, least)
        return type(self)(
            self.centre,
            (safe / safe.sum()).ravel().astype(np.float32),
            np.where(held, means, self.means).astype(np.float32),
            np.where(held, variances, self.variances).astype(np.float32),
        )

    @cached_property
    def factors(self) -> tuple[NDArray[np.float64], ...]:
        """What turns sums into gradients, each float64 [K, D].

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

    def to_graph(self, builder: GraphBuilder, rows: str) -> tuple[str, str]:
        """The twin of ``sums`` up to the last product.

        Args:
            rows: float32 [n, D].

        Returns:
            Posteriors float32 [n, K]; z, z**2 and 1 float32 [n, 2 D + 1].
        """
        shifted = builder.node("Sub", rows, builder.constant("centre", self.centre))
        squares = builder.node("Mul", shifted, shifted)
        pads = builder.constant("pads", np.array([0, 0, 0, 1]))
        both = builder.node("Concat", shifted, squares, axis=1)
        one = builder.constant("one", np.array(1, np.float32))
        powers = builder.node("Pad", both, pads, one, name="powers")
        logs = builder.node("MatMul", powers, builder.constant("weights", self._weights.T))
        axis = builder.constant("axis", np.array([1]))
        highest = builder.node("ReduceMax", logs, axis)
        below = builder.node("Sub", logs, highest)
        lowest = builder.constant("lowest", np.array(_LOWEST, np.float32))
        kept = builder.node("Max", below, lowest)
        return builder.node("Softmax", kept, axis=1, name="posteriors"), powers

    def _powers(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """z, z**2 and 1 of rows float32 [n, D], as float32 [n, 2 D + 1]."""
        width = rows.shape[1]
        powers = np.empty((len(rows), 2 * width + 1), np.float32)
        shifted = np.subtract(rows, self.centre, out=powers[:, :width])
        np.multiply(shifted, shifted, out=powers[:, width:-1])
        powers[:, -1] = 1
        return powers

    @cached_property
    def _weights(self) -> NDArray[np.float32]:
        """float32 [K, 2 D + 1]: the product with z, z**2 and 1 is log(w_k N(z; mean, variance)).

        Without D log(2 pi) / 2, which is the same for every component.
        """
        means, variances = self.means.astype(np.float64), self.variances.astype(np.float64)
        offsets = (np.log(variances) + means**2 / variances).sum(axis=1) / 2
        constant = np.log(self.weights.astype(np.float64)) - offsets
        parts = [means / variances, -0.5 / variances, constant[:, None]]
        return np.concatenate(parts, axis=1).astype(np.float32)
