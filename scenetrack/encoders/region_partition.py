"""Partition of overlapping regions into disjoint cells: the sum of a region is that of its cells.

A pyramid of 1x1 and 2x2 has five regions and four cells, so each descriptor is added up once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from scipy.sparse import csc_array

from scenetrack.graphs.builder import GraphBuilder


@dataclass(frozen=True, eq=False)
class Cells:
    """The descriptors of an image, grouped by the set of regions that hold them.

    Attributes:
        order: int64 [m], the descriptors that lie in any region, cell after cell.
        sizes: int64 [P], number of descriptors of each cell; one cell of 0 where m is 0.
        members: float64 [R, P] of zeros and ones, the cells of each region.
    """

    order: NDArray[np.int64]
    sizes: NDArray[np.int64]
    members: NDArray[np.float64]

    def firsts(self, groups: int) -> NDArray[np.int64]:
        """Return the first group of each sorted descriptor's cell, for cells of ``groups`` each."""
        return np.repeat(np.arange(len(self.sizes)) * groups, self.sizes)

    def total(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sums [R, ...] of regions from the sums float64 [P, ...] of cells."""
        joined = self.members @ sums.reshape(len(sums), -1)
        return joined.reshape(len(joined), *sums.shape[1:])

    def total_in_graph(self, builder: GraphBuilder, sums: str, shape: tuple[int, ...]) -> str:
        """Add ``total`` to the graph.

        Args:
            sums: float64 [P, ...].
            shape: shape of a cell's sums, without P.
        """
        flat = builder.node("Flatten", sums, axis=1)
        joined = builder.node("MatMul", builder.constant("members", self.members), flat)
        target = np.array([len(self.members), *shape])
        return builder.node("Reshape", joined, builder.constant("shape", target), name="total")

    def sort_in_graph(self, builder: GraphBuilder, rows: str) -> str:
        """Add the sorting of rows [n, ...] by cell, [m, ...], to the graph."""
        return builder.node("Gather", rows, builder.constant("order", self.order), name="sorted")

    def products_in_graph(self, builder: GraphBuilder, left: str, right: str) -> str:
        """Add for each cell the product of its rows of ``left``, transposed, and of ``right``.

        Args:
            left: float32 [m, A], sorted.
            right: float32 or float64 [m, B], sorted.

        Returns:
            float64 [P, A, B]; products are taken in the dtype of ``right``.
        """
        pairs = zip(self._split(builder, left), self._split(builder, right), strict=True)
        axis = builder.constant("first", np.array([0]))
        products = []
        for pair in pairs:
            product = builder.node("Gemm", builder.node("CastLike", *pair), pair[1], transA=1)
            products.append(builder.node("Unsqueeze", product, axis))
        stacked = builder.node("Concat", *products, axis=0)
        return builder.node("Cast", stacked, to=TensorProto.DOUBLE, name="products")

    def _split(self, builder: GraphBuilder, rows: str) -> tuple[str, ...]:
        sizes = builder.constant("sizes", self.sizes)
        parts = builder.node("Split", rows, sizes, outputs=len(self.sizes), axis=0)
        return (parts,) if isinstance(parts, str) else parts


def cells_of(regions: NDArray[np.bool_]) -> Cells:
    """Return the cells of ``regions`` bool [R, n].

    The last few results are kept, because the images of a data set share their regions.
    """
    return _cells(np.asarray(regions, np.bool_).tobytes(), regions.shape)


@lru_cache(maxsize=8)
def _cells(packed: bytes, shape: tuple[int, int]) -> Cells:
    regions = np.frombuffer(packed, np.bool_).reshape(shape)
    (inside,) = np.nonzero(regions.any(axis=0))
    if not len(inside):
        return Cells(inside, np.zeros(1, np.int64), np.zeros((len(regions), 1)))
    patterns, cell = np.unique(regions[:, inside], axis=1, return_inverse=True)
    return Cells(
        inside[np.argsort(cell, kind="stable")],
        np.bincount(cell, minlength=patterns.shape[1]),
        patterns.astype(np.float64),
    )


def sums_by_group(
    rows: NDArray[np.float64], groups: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """Return the sum of the rows float64 [n, D] of each group, float64 [count, D].

    Args:
        groups: int64 [n], group of each row, in [0, count).
    """
    ones, starts = np.ones(len(rows)), np.arange(len(rows) + 1)
    chosen = csc_array((ones, groups, starts), shape=(count, len(rows)))
    return np.asarray(chosen @ rows)
