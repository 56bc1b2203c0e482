"""Kernels of histograms and descriptors, in threads and blocks that fit the processor's cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from scenetrack.graph import GraphBuilder

Floats: TypeAlias = NDArray[np.float64]

HISTOGRAM_KERNELS = ("chi2", "intersection")

# Rows of one side whose comparison with a row of the other stays in the processor's cache.
_BLOCK_BYTES = 2**18


def compare(left: Floats, right: Floats, kernel: str) -> Floats:
    """What a kernel is made of, before gamma.

    Args:
        left: [N, D].
        right: [M, D].
        kernel: one of ``config.KERNELS``.

    Returns:
        float64 [N, M]: for linear the inner product, for rbf the squared Euclidean distance, for
        chi2 the sum of (x - y)^2 / (x + y) with 0 / 0 as 0, for intersection the sum of the
        smaller values. The last two are summed in float32.
    """
    if kernel == "linear":
        return np.asarray(left @ right.T)
    if kernel == "rbf":
        squares = np.einsum("nd,nd->n", left, left)[:, None] - 2 * (left @ right.T)
        squares += np.einsum("nd,nd->n", right, right)
        return np.asarray(np.maximum(squares, 0, out=squares))
    if kernel == "intersection":
        return _in_blocks(left, right, _shared)
    # (x - y)^2 / (x + y) = x + y - 4 xy / (x + y), which leaves fewer passes over D.
    distances = -4 * _in_blocks(left, right, _harmonic)
    distances += left.sum(axis=1)[:, None]
    distances += right.sum(axis=1)
    return np.asarray(np.maximum(distances, 0, out=distances))


def kernel_matrix(compared: Floats, kernel: str, gamma: float) -> Floats:
    """The kernel of ``compare``'s [N, M]: exp(-gamma x) for rbf and chi2, else unchanged."""
    return np.exp(-gamma * compared) if kernel in ("rbf", "chi2") else compared


_Pairwise: TypeAlias = Callable[
    [NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]], None
]


def _shared(row: NDArray[np.float32], block: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    np.minimum(row, block, out=out)


def _harmonic(
    row: NDArray[np.float32], block: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    np.add(row, block, out=out)
    # Where both are 0 the product is 0 too; the smallest normal number keeps 0 / 0 away.
    np.maximum(out, np.finfo(np.float32).tiny, out=out)
    np.divide(block, out, out=out)
    np.multiply(out, row, out=out)


def _in_blocks(left: Floats, right: Floats, pairwise: _Pairwise) -> Floats:
    """Sum over D of ``pairwise`` for all pairs of rows, threaded over blocks of ``right``."""
    rows, others = left.astype(np.float32), right.astype(np.float32)
    result = np.empty((len(rows), len(others)))
    ones = np.ones(rows.shape[1], np.float32)
    step = max(1, _BLOCK_BYTES // (4 * rows.shape[1]))

    def fill(start: int) -> None:
        block = others[start : start + step]
        buffer = np.empty_like(block)
        for index, row in enumerate(rows):
            pairwise(row, block, buffer)
            result[index, start : start + step] = buffer @ ones

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, range(0, len(others), step)))
    return result


def compare_in_graph(builder: GraphBuilder, left: str, right: Floats, kernel: str) -> str:
    """The twin of ``compare``: a tensor float64 [N, D] and M constant rows to float64 [N, M]."""
    rows = builder.constant("support", right)
    if kernel in HISTOGRAM_KERNELS:
        pairwise = _shared_in_graph if kernel == "intersection" else _chi2_in_graph
        (compared,) = builder.each(
            [left], lambda inner, row: [pairwise(inner, row, rows)], [np.float64]
        )
        return compared
    product = builder.node("MatMul", left, builder.node("Transpose", rows, perm=[1, 0]))
    if kernel == "linear":
        return product
    lengths = builder.node("ReduceSumSquare", left, _last_axis(builder), keepdims=1)
    others = builder.constant("lengths", np.einsum("md,md->m", right, right))
    twice = builder.node("Mul", product, builder.constant("two", np.array(2.0)))
    squares = builder.node("Add", builder.node("Sub", lengths, twice), others, name="squares")
    return builder.node("Max", squares, builder.constant("zero", np.array(0.0)))


def kernel_in_graph(builder: GraphBuilder, compared: str, kernel: str, gamma: float) -> str:
    """The twin of ``kernel_matrix``."""
    if kernel not in ("rbf", "chi2"):
        return compared
    return builder.node(
        "Exp", builder.node("Mul", compared, builder.constant("gamma", np.array(-gamma)))
    )


def _shared_in_graph(builder: GraphBuilder, row: str, rows: str) -> str:
    smaller = builder.node("Min", row, rows)
    return builder.node("ReduceSum", smaller, _last_axis(builder), keepdims=0)


def _chi2_in_graph(builder: GraphBuilder, row: str, rows: str) -> str:
    difference = builder.node("Sub", row, rows)
    tiny = builder.constant("tiny", np.array(np.finfo(np.float32).tiny, np.float64))
    total = builder.node("Max", builder.node("Add", row, rows), tiny)
    terms = builder.node("Div", builder.node("Mul", difference, difference), total)
    return builder.node("ReduceSum", terms, _last_axis(builder), keepdims=0)


def _last_axis(builder: GraphBuilder) -> str:
    return builder.constant("last", np.array([-1], np.int64))
