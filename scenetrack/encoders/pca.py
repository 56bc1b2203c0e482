"""PCA of descriptors, exact in fixed point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA

from scenetrack.encoders.checks import check_width, checked_rows
from scenetrack.encoders.fixed_point import grid_in_graph, steps_per_unit, to_grid
from scenetrack.errors import InputError
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.system.arrays import checked_arrays

# A product of two rows is exact while the product of their lengths is below 2**52 grid steps. A
# row of the components has length 1 and 2**23 steps; descriptors may be 8 times as long as those
# at fit. Products of longer ones are rounded to float64.
_COMPONENT_BITS, _PCA_BITS = 23, 26
# Whole numbers need no grid, and float32 holds sums of them exactly below 2**24 steps: components
# get the bits that this leaves, descriptors may be twice as long as those at fit.
_WHOLE_BITS = 23
_SAVED = {
    "mean": "numbers D",
    "components": "numbers d D",
    "length": "numbers",
    "whole": "flag",
}


class DescriptorPca(TransformerMixin, BaseEstimator):
    """Principal components of descriptors, without whitening.

    The components come from the eigenvectors of the D x D covariance matrix, which costs one pass
    over the sample however many descriptors it holds.

    Args:
        n_components: dimensions d to keep, 1 to D.

    Attributes:
        mean_: float32 [D], mean of the sample.
        length_: float, the largest Euclidean length of a descriptor of the sample.
        whole_: whether the PCA was fitted to integers, whose products are exact in float32.
        components_: float32 [d, D], orthonormal rows, largest variance first; rounded so that
            products with integers are exact, to at least 9 bits for 4,096 bytes, where ``whole_``.
        explained_variance_ratio_: float32 [d], share of the sample's variance, each in [0, 1].
    """

    def __init__(self, n_components: int = 80) -> None:
        self.n_components = n_components

    def fit(self, descriptors: NDArray[Any], y: None = None) -> Self:
        """Fit the components to ``descriptors`` [N, D] of float32 or integers below 2**24.

        Raises:
            InputError: fewer descriptors or dimensions than components, or values not finite.
        """
        rows = checked_rows(descriptors)
        if self.n_components > min(rows.shape):
            raise InputError(
                f"PCA to {self.n_components} dimensions needs at least as many descriptors and "
                f"descriptor values. Received: {rows.shape[0]} descriptors of {rows.shape[1]} "
                "values; choose a smaller pca, or 0 for none"
            )
        pca = PCA(self.n_components, svd_solver="covariance_eigh").fit(rows)
        self.mean_ = pca.mean_.astype(np.float32)
        self.length_ = float(np.sqrt(np.einsum("nd,nd->n", rows, rows).max()))
        self.whole_ = bool(np.issubdtype(np.asarray(descriptors).dtype, np.integer))
        self.components_ = pca.components_.astype(np.float32)
        if self.whole_:
            steps = steps_per_unit(self.length_, _WHOLE_BITS)
            self.components_ = (np.rint(self.components_ * steps) / steps).astype(np.float32)
        self.explained_variance_ratio_ = pca.explained_variance_ratio_.astype(np.float32)
        return self

    def transform(self, descriptors: NDArray[Any]) -> NDArray[np.float32]:
        """Project ``descriptors`` [..., D] of the fitted kind to float32 [..., d].

        Raises:
            InputError: D differs from that at fit.
        """
        values = np.asarray(descriptors, dtype=np.float32)
        check_width(values.shape[-1], self.mean_.size)
        if self.whole_:
            product = values @ np.ascontiguousarray(self.components_.T)
            product -= self._projected_mean
            return np.asarray(product)
        scale, weights, offsets = self._grid()
        # The mean is subtracted after the product, because [..., d] is smaller than [..., D].
        projected = to_grid(values, scale) @ weights
        projected -= offsets
        projected *= 1 / (scale * 2**_COMPONENT_BITS)
        return np.asarray(projected.astype(np.float32))

    def to_graph(self, builder: GraphBuilder, descriptors: str) -> str:
        """Add ``transform`` to the graph: float32 [..., D] to float32 [..., d]."""
        with builder.scope("pca"):
            if self.whole_:
                weights = builder.constant("weights", self.components_.T)
                product = builder.node("MatMul", descriptors, weights)
                offsets = builder.constant("offsets", self._projected_mean)
                return builder.node("Sub", product, offsets)
            return self._project_in_graph(builder, descriptors)

    def _project_in_graph(self, builder: GraphBuilder, descriptors: str) -> str:
        scale, weights, offsets = self._grid()
        rows = grid_in_graph(builder, descriptors, scale)
        product = builder.node("MatMul", rows, builder.constant("weights", weights))
        centred = builder.node("Sub", product, builder.constant("offsets", offsets))
        step = np.array(1 / (scale * 2**_COMPONENT_BITS))
        projected = builder.node("Mul", centred, builder.constant("step", step))
        return builder.node("Cast", projected, to=TensorProto.FLOAT)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return learnt values as arrays without objects."""
        return {
            "mean": self.mean_,
            "components": self.components_,
            "length": np.array(self.length_),
            "whole": np.array(self.whole_),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the PCA whose ``to_arrays`` gave ``arrays``, without its shares of the variance.

        Raises:
            InputError: an array is missing or does not fit the others, or the length is below 0.
        """
        saved = checked_arrays(arrays, _SAVED, "PCA")
        pca = cls(len(saved["components"]))
        pca.mean_ = np.asarray(saved["mean"], np.float32)
        pca.components_ = np.asarray(saved["components"], np.float32)
        pca.length_ = float(saved["length"])
        pca.whole_ = bool(saved["whole"])
        if pca.length_ < 0:
            raise InputError(
                f"a saved PCA needs a length of at least 0. Received: {pca.length_:g}; train it "
                "again with this version"
            )
        return pca

    @property
    def _projected_mean(self) -> NDArray[np.float32]:
        mean = np.asarray(self.mean_, np.float64) @ self.components_.T.astype(np.float64)
        return np.asarray(mean, np.float32)

    def _grid(self) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Return steps per unit; components [D, d] and projected mean [d] in steps."""
        scale = steps_per_unit(self.length_, _PCA_BITS)
        weights = to_grid(self.components_, 2.0**_COMPONENT_BITS).T
        return scale, np.ascontiguousarray(weights), to_grid(self.mean_, scale) @ weights
