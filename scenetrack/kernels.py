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
# Its name and gamma.
Kernel: TypeAlias = tuple[str, float]

HISTOGRAM_KERNELS = ("chi2", "intersection")

# Rows of one side whose comparison with a row of the other stays in the processor's cache.
_BLOCK_BYTES = 2**18
_TINY = float(np.finfo(np.float32).tiny)


def compare(left: Floats, right: Floats, kernel: str) -> Floats:
    """What a kernel is made of, before gamma.

    Args:
        left: [N, D].
        right: [M, D].
        kernel: one of ``config.KERNELS``.

    Returns:
        float64 [N, M]: for linear the inner product, for rbf the squared Euclidean distance, for
        chi2 the sum of (x - y)^2 / (x + y) with 0 / 0 as 0, for intersection the sum of the
        smaller values. Rows compared with themselves, ``left is right``, take half the time.
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


_Pairwise: TypeAlias = Callable[[Floats, Floats, Floats], Floats]


def _shared(row: Floats, block: Floats, out: Floats) -> Floats:
    np.minimum(row, block, out=out)
    return np.asarray(out @ np.ones(len(row)))


def _harmonic(row: Floats, block: Floats, out: Floats) -> Floats:
    # Where both are 0 the quotient is 0 too; the smallest normal number keeps 0 / 0 away.
    np.maximum(block, _TINY, out=out)
    out += row
    np.divide(block, out, out=out)
    return np.asarray(out @ row)


def _in_blocks(left: Floats, right: Floats, pairwise: _Pairwise) -> Floats:
    """``pairwise`` sums over D for all pairs of rows, threaded over blocks of ``right``."""
    mirrored = left is right
    result = np.empty((len(left), len(right)))
    step = max(1, _BLOCK_BYTES // (8 * right.shape[1]))

    def fill(start: int) -> None:
        part = slice(start, start + step)
        block = np.ascontiguousarray(right[part])
        buffer = np.empty_like(block)
        for index in range(start if mirrored else 0, len(left)):
            result[index, part] = pairwise(left[index], block, buffer)
        if mirrored:
            result[part, start:] = result[start:, part].T

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, range(0, len(right), step)))
    return result


def compare_in_graph(builder: GraphBuilder, left: str, others: str, kernel: str) -> str:
    """The twin of ``compare``: tensors float64 [N, D] and [M, D] to float64 [N, M].

    For chi2 and intersection one row after the other, so that [M, D] values are held at a time.
    """
    if kernel in HISTOGRAM_KERNELS:
        add = _shared_in_graph if kernel == "intersection" else _chi2_in_graph
        pairwise = add(builder, others)
        (compared,) = builder.each([left], lambda inner, row: [pairwise(inner, row)], [np.float64])
        return compared
    product = builder.node("MatMul", left, builder.node("Transpose", others, perm=[1, 0]))
    if kernel == "linear":
        return product
    lengths = builder.node("ReduceSumSquare", left, _last_axis(builder), keepdims=1)
    squares = builder.node("Sub", lengths, builder.node("Mul", product, _number(builder, 2)))
    lengths = builder.node("ReduceSumSquare", others, _last_axis(builder), keepdims=0)
    return builder.node("Max", builder.node("Add", squares, lengths), _number(builder, 0))


def kernel_in_graph(builder: GraphBuilder, compared: str, kernel: str, gamma: float) -> str:
    """The twin of ``kernel_matrix``."""
    if kernel not in ("rbf", "chi2"):
        return compared
    return builder.node("Exp", builder.node("Mul", compared, _number(builder, -gamma)))


_PairwiseTwin: TypeAlias = Callable[[GraphBuilder, str], str]


def _shared_in_graph(outer: GraphBuilder, others: str) -> _PairwiseTwin:
    return lambda builder, row: builder.node(
        "ReduceSum", builder.node("Min", row, others), _last_axis(builder), keepdims=0
    )


def _chi2_in_graph(outer: GraphBuilder, others: str) -> _PairwiseTwin:
    # The sums over constants alone are done once, when the graph is loaded.
    floor = outer.node("Max", others, _number(outer, _TINY))
    sums = outer.node("ReduceSum", others, _last_axis(outer), keepdims=0)

    def distances(builder: GraphBuilder, row: str) -> str:
        quotients = builder.node("Div", others, builder.node("Add", floor, row))
        terms = builder.node("Mul", quotients, row)
        harmonic = builder.node("ReduceSum", terms, _last_axis(builder), keepdims=0)
        total = builder.node("Add", builder.node("ReduceSum", row, keepdims=0), sums)
        four = builder.node("Mul", harmonic, _number(builder, 4))
        return builder.node("Max", builder.node("Sub", total, four), _number(builder, 0))

    return distances


def _chi2_terms_in_graph(builder: GraphBuilder, row: str, others: str) -> str:
    """(x - y)^2 / (x + y) of each value: float64 [D] and [M, D] to [M, D]."""
    total = builder.node("Max", builder.node("Add", row, others), _number(builder, _TINY))
    difference = builder.node("Sub", row, others)
    return builder.node("Div", builder.node("Mul", difference, difference), total)


def change_in_graph(
    builder: GraphBuilder, rows: tuple[str, str], others: str, similar: str, machine: Kernel
) -> str:
    """What a row's kernel values lose when one of its values alone changes, for each of its values.

    Args:
        rows: the row as it is and its changed values, each float64 [D].
        others: float64 [M, D].
        similar: the kernel of the row as it is and the others, float64 [M].
        machine: the kernel and its gamma.

    Returns:
        float64 [M, D].
    """
    kernel, gamma = machine
    before, after = rows
    if kernel == "linear":
        return builder.node("Mul", others, builder.node("Sub", before, after))
    if kernel == "intersection":
        terms = [builder.node("Min", row, others) for row in rows]
        return builder.node("Sub", *terms)
    if kernel == "chi2":
        old, new = (_chi2_terms_in_graph(builder, row, others) for row in rows)
        farther = builder.node("Sub", new, old)
    else:
        # (b - y)^2 - (a - y)^2 = (b - a) (a + b - 2y).
        twice = builder.node("Mul", others, _number(builder, 2))
        middle = builder.node("Sub", builder.node("Add", before, after), twice)
        farther = builder.node("Mul", builder.node("Sub", after, before), middle)
    left = kernel_in_graph(builder, farther, kernel, gamma)
    axis = builder.constant("column", np.array([1], np.int64))
    share = builder.node("Sub", _number(builder, 1), left)
    return builder.node("Mul", share, builder.node("Unsqueeze", similar, axis))


def _last_axis(builder: GraphBuilder) -> str:
    return builder.constant("last", np.array([-1], np.int64))


def _number(builder: GraphBuilder, value: float) -> str:
    return builder.constant("number", np.array(value, np.float64))
