"""Fisher vectors: gradients of a Gaussian mixture's log-likelihood by its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from scenetrack.config.encoder_registry import ENCODERS
from scenetrack.encoders.base import LocalEncoder
from scenetrack.encoders.checks import check_regions, check_width, checked_rows
from scenetrack.encoders.gaussian_mixture import DiagonalMixture
from scenetrack.encoders.normalisation import (
    signed_power,
    signed_power_in_graph,
    unit_length,
    unit_length_in_graph,
)
from scenetrack.encoders.region_partition import cells_of
from scenetrack.errors import InputError
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.system.arrays import checked_arrays

_POWER = 0.5

_SAVED = {
    "centre": "numbers D",
    "weights": "numbers K",
    "means": "numbers K D",
    "variances": "numbers K D",
}


class FisherVector(LocalEncoder):
    """Improved Fisher vector: Perronnin, Sanchez and Mensink, "Improving the Fisher kernel for
    large-scale image classification", 2010.

    With q_ik the posterior of component k for descriptor x_i, and w, m, s its weight, mean and
    standard deviation, the gradients with respect to means and standard deviations are

        sum_i q_ik (x_i - m_k) / s_k / sqrt(w_k)
        sum_i q_ik (((x_i - m_k) / s_k)**2 - 1) / sqrt(2 w_k)

    (their equations 2 and 3 without the division by the number of descriptors, which unit length
    cancels). Then the signed square root of each value and unit Euclidean length
    (their sections 3.2 and 3.1). The gradient with respect to weights is left out, as in the paper.

    Args:
        codebook_size: number K of components.
        random_state: seed of the k-means that initialises the mixture.
        iterations: most iterations of expectation maximisation (EM).

    Attributes:
        mixture_: the fitted Gaussian mixture.
    """

    about = ENCODERS["fisher_vector"]

    def __init__(
        self, codebook_size: int = 128, random_state: int = 0, iterations: int = 25
    ) -> None:
        self.codebook_size = codebook_size
        self.random_state = random_state
        self.iterations = iterations

    @property
    def width(self) -> int:
        """Number 2 K D of values of an encoding."""
        return 2 * self.mixture_.means.size

    @property
    def preparation(self) -> str:
        """Preparation for SVMs: none, because encodings have length 1 already."""
        return "none"

    def fit(self, descriptors: NDArray[np.float32], y: None = None) -> Self:
        """Fit the mixture to a sample of ``descriptors`` float32 [N, D], N >= K.

        Raises:
            InputError: there are fewer descriptors than components, or values are not finite.
        """
        self.mixture_ = DiagonalMixture.learn(
            checked_rows(descriptors), self.codebook_size, self.random_state, self.iterations
        )
        return self

    def pool(self, rows: NDArray[np.float32], regions: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Compute the Fisher vectors of the regions of one image.

        Args:
            rows: float32 [n, D].
            regions: bool [R, n].

        Returns:
            float32 [R, 2 K D], each of length 1; zeros where a region is empty.

        Raises:
            InputError: D differs from that at fit, values are not finite, or regions do not fit.
        """
        rows = checked_rows(rows)
        check_width(rows.shape[1], self.mixture_.centre.size)
        check_regions(regions, len(rows))
        cells = cells_of(regions)
        parts = np.split(rows[cells.order], np.cumsum(cells.sizes)[:-1])
        sums = cells.total(np.stack([self.mixture_.sums(part)[0] for part in parts]))
        powered = signed_power(self._gradients(sums).reshape(len(sums), -1), _POWER)
        return unit_length(powered).astype(np.float32)

    def _gradients(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the gradients float64 [R, 2, K, D] of sums float64 [R, K, 2 D + 1] of regions."""
        width = self.mixture_.centre.size
        first, second, mass = np.split(sums, [width, 2 * width], axis=2)
        means, twice, offsets, mean_factors, spread_factors = self.mixture_.factors
        of_means = (first - mass * means) * mean_factors
        of_spreads = (second - twice * first + mass * offsets) * spread_factors
        return np.stack([of_means, of_spreads], axis=1)

    def pool_in_graph(self, builder: GraphBuilder, rows: str, regions: NDArray[np.bool_]) -> str:
        """Add ``pool`` to the graph: rows float32 [n, D] to float32 [R, 2 K D]."""
        cells = cells_of(regions)
        size, width = self.mixture_.means.shape
        with builder.scope("fisher"):
            ordered = cells.sort_in_graph(builder, rows)
            parts = self.mixture_.sums_in_graph(builder, ordered, cells)
            sums = cells.total_in_graph(builder, parts, (size, 2 * width + 1))
            gradients = self._gradients_in_graph(builder, sums)
            powered = signed_power_in_graph(builder, gradients, _POWER)
            unit = unit_length_in_graph(builder, powered)
            return builder.node("Cast", unit, to=TensorProto.FLOAT, name="encoding")

    def _gradients_in_graph(self, builder: GraphBuilder, sums: str) -> str:
        """Add ``_gradients`` to the graph, flattened: float64 [R, 2 K D]."""
        width = self.mixture_.centre.size
        lengths = builder.constant("lengths", np.array([width, width, 1]))
        first, second, mass = builder.node("Split", sums, lengths, outputs=3, axis=2)
        means, twice, offsets, mean_factors, spread_factors = (
            builder.constant("factors", values) for values in self.mixture_.factors
        )
        moved = builder.node("Sub", first, builder.node("Mul", mass, means))
        of_means = builder.node("Mul", moved, mean_factors)
        wider = builder.node("Sub", second, builder.node("Mul", twice, first))
        shrunk = builder.node("Add", wider, builder.node("Mul", mass, offsets))
        of_spreads = builder.node("Mul", shrunk, spread_factors)
        flat = [builder.node("Flatten", part, axis=1) for part in (of_means, of_spreads)]
        return builder.node("Concat", *flat, axis=1, name="gradients")

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return learnt values as float32 arrays without objects."""
        return {name: getattr(self.mixture_, name) for name in _SAVED}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the encoder whose ``to_arrays`` gave ``arrays``; its vectors are the same.

        Raises:
            InputError: an array is missing, does not fit the others, or has impossible values.
        """
        saved = checked_arrays(arrays, _SAVED, cls.about.title)
        values = {name: np.asarray(array, np.float32) for name, array in saved.items()}
        for name in ("weights", "variances"):
            if not (values[name] > 0).all():
                raise InputError(
                    f"a saved {cls.about.title} needs {name} above 0. Received: "
                    f"{values[name].min():g}; train it again with this version"
                )
        encoder = cls(len(values["means"]))
        encoder.mixture_ = DiagonalMixture(**values)
        return encoder
