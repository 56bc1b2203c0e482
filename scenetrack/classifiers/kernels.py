"""Kernels of histograms and descriptors, in threads and blocks that fit the processor's cache."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import TypeAlias

import numpy as np
from onnx import TensorProto

from scenetrack.classifiers.feature_rows import Floats, Rows, column_parts, parts
from scenetrack.config import KERNELS
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.system.machine import available_cpus

# Its name and gamma.
Kernel: TypeAlias = tuple[str, float]


# Rows of the left side that are multiplied at a time: what a part's product takes besides.
_PRODUCT_ROWS = 4096
# Rows of one side whose comparison with a row of the other stays in the processor's cache.
_BLOCK_BYTES = 2**18
_TINY = float(np.finfo(np.float32).tiny)


def compare(left: Rows, right: Rows, kernel: str) -> Floats:
    """Return what a kernel is made of, before gamma, for all pairs of rows.

    Args:
        left: [N, D].
        right: [M, D].
        kernel: one of ``config.KERNELS``.

    Returns:
        float64 [N, M]. Rows compared with themselves, ``left is right``, take half the time.
    """
    return _ARITHMETIC[kernel].compare(left, right)


def kernel_matrix(compared: Floats, kernel: str, gamma: float) -> Floats:
    """Turn ``compare``'s [N, M] into the kernel: exp(-gamma x) with a gamma, else unchanged."""
    return np.exp(-gamma * compared) if KERNELS[kernel].has_gamma else compared


def compare_in_graph(builder: GraphBuilder, left: str, others: str, kernel: str) -> str:
    """Add ``compare`` to a graph: tensors float64 [N, D] and [D, M] to float64 [N, M]."""
    return _ARITHMETIC[kernel].compare_in_graph(builder, left, others)


def kernel_in_graph(builder: GraphBuilder, compared: str, kernel: str, gamma: float) -> str:
    """Add ``kernel_matrix`` to a graph."""
    if not KERNELS[kernel].has_gamma:
        return compared
    return builder.node("Exp", builder.node("Mul", compared, _number(builder, -gamma)))


def change_in_graph(
    builder: GraphBuilder, rows: tuple[str, str], others: str, similar: str, machine: Kernel
) -> str:
    """Add to a graph what a row's kernel values lose when one of its values alone changes.

    Args:
        rows: values of the row as they are and as they would be, each float64 [d].
        others: the same values of the other rows, float64 [d, M].
        similar: the kernel of the whole row as it is and the others, float64 [M].
        machine: the kernel and its gamma.

    Returns:
        float64 [d, M], one change in each row.
    """
    kernel, gamma = machine
    before, after = (builder.node("Unsqueeze", row, _axis(builder, 1)) for row in rows)
    change = _ARITHMETIC[kernel].change_in_graph(builder, before, after, others)
    if not KERNELS[kernel].has_gamma:
        return builder.node("Neg", change)
    left = kernel_in_graph(builder, change, kernel, gamma)
    return builder.node("Mul", builder.node("Sub", _number(builder, 1), left), similar)


class _Arithmetic(ABC):
    """The arithmetic of one kernel, in NumPy and in graphs."""

    @abstractmethod
    def compare(self, left: Rows, right: Rows) -> Floats:
        """See ``compare``."""

    @abstractmethod
    def compare_in_graph(self, builder: GraphBuilder, left: str, others: str) -> str:
        """See ``compare_in_graph``."""

    @abstractmethod
    def change_in_graph(self, builder: GraphBuilder, before: str, after: str, others: str) -> str:
        """Add by how much ``compare`` grows when one value of a row changes.

        Args:
            before: single values of a row, float64 [d, 1].
            after: what they become, float64 [d, 1].
            others: the same values of the other rows, float64 [d, M].
        """


class _Linear(_Arithmetic):
    """The inner product."""

    def compare(self, left: Rows, right: Rows) -> Floats:
        return _products(left, right)

    def compare_in_graph(self, builder: GraphBuilder, left: str, others: str) -> str:
        return builder.node("MatMul", left, others)

    def change_in_graph(self, builder: GraphBuilder, before: str, after: str, others: str) -> str:
        return builder.node("Mul", others, builder.node("Sub", after, before))


class _Rbf(_Arithmetic):
    """The squared Euclidean distance."""

    def compare(self, left: Rows, right: Rows) -> Floats:
        squares = _products(left, right)
        squares *= -2
        squares += _row_sums(left, np.square)[:, None]
        squares += _row_sums(right, np.square)
        return np.asarray(np.maximum(squares, 0, out=squares))

    def compare_in_graph(self, builder: GraphBuilder, left: str, others: str) -> str:
        product = builder.node("MatMul", left, others)
        lengths = builder.node("ReduceSumSquare", left, _axis(builder, 1), keepdims=1)
        squares = builder.node("Sub", lengths, builder.node("Mul", product, _number(builder, 2)))
        lengths = builder.node("ReduceSumSquare", others, _axis(builder, 0), keepdims=0)
        return builder.node("Max", builder.node("Add", squares, lengths), _number(builder, 0))

    def change_in_graph(self, builder: GraphBuilder, before: str, after: str, others: str) -> str:
        # (b - y)^2 - (a - y)^2 = (b - a) (a + b - 2y).
        twice = builder.node("Mul", others, _number(builder, 2))
        middle = builder.node("Sub", builder.node("Add", before, after), twice)
        return builder.node("Mul", builder.node("Sub", after, before), middle)


class _Histograms(_Arithmetic):
    """A kernel of histograms; graphs compute it row by row.

    Of each row only the values above 0 are compared: an image has few of the words.
    """

    def compare_in_graph(self, builder: GraphBuilder, left: str, others: str) -> str:
        pairwise = self.row_in_graph(builder, others)
        (compared,) = builder.each([left], lambda inner, row: [pairwise(inner, row)], [np.float64])
        return compared

    @abstractmethod
    def row_in_graph(self, outer: GraphBuilder, others: str) -> _PairwiseInGraph:
        """Return what compares one row float64 [D] with all others: float64 [M]."""


class _Intersection(_Histograms):
    """The sum of the smaller values."""

    def compare(self, left: Rows, right: Rows) -> Floats:
        return _in_blocks(left, right, _shared)

    def row_in_graph(self, outer: GraphBuilder, others: str) -> _PairwiseInGraph:
        def shared(builder: GraphBuilder, row: str) -> str:
            values, parts = _above_zero(builder, row, others)
            smaller = builder.node("Min", values, parts)
            return builder.node("ReduceSum", smaller, _axis(builder, 0), keepdims=0)

        return shared

    def change_in_graph(self, builder: GraphBuilder, before: str, after: str, others: str) -> str:
        return builder.node("Sub", *(builder.node("Min", row, others) for row in (after, before)))


class _Chi2(_Histograms):
    """The sum of (x - y)^2 / (x + y), 0 / 0 being 0."""

    def compare(self, left: Rows, right: Rows) -> Floats:
        # (x - y)^2 / (x + y) = x + y - 4 xy / (x + y), which leaves fewer passes over D.
        distances = _in_blocks(left, right, _harmonic)
        distances *= -4
        distances += _row_sums(left)[:, None]
        distances += _row_sums(right)
        return np.asarray(np.maximum(distances, 0, out=distances))

    def row_in_graph(self, outer: GraphBuilder, others: str) -> _PairwiseInGraph:
        # Of constants alone: ONNX Runtime adds them up once, when it loads the graph.
        sums = outer.node("ReduceSum", others, _axis(outer, 0), keepdims=0)

        def distances(builder: GraphBuilder, row: str) -> str:
            values, parts = _above_zero(builder, row, others)
            quotients = builder.node("Div", parts, builder.node("Add", parts, values))
            terms = builder.node("Mul", quotients, values)
            harmonic = builder.node("ReduceSum", terms, _axis(builder, 0), keepdims=0)
            total = builder.node("Add", builder.node("ReduceSum", row, keepdims=0), sums)
            four = builder.node("Mul", harmonic, _number(builder, 4))
            return builder.node("Max", builder.node("Sub", total, four), _number(builder, 0))

        return distances

    def change_in_graph(self, builder: GraphBuilder, before: str, after: str, others: str) -> str:
        new, old = (_chi2_terms_in_graph(builder, row, others) for row in (after, before))
        return builder.node("Sub", new, old)


# Each kernel of ``config.KERNELS``.
_ARITHMETIC: dict[str, _Arithmetic] = {
    "linear": _Linear(),
    "rbf": _Rbf(),
    "chi2": _Chi2(),
    "intersection": _Intersection(),
}


def _products(left: Rows, right: Rows) -> Floats:
    """Add up inner products, the columns a part at a time, each in float64."""
    if left is not right and len(left) > _PRODUCT_ROWS:
        blocks = [left.like(left.values[rows]) for rows in parts(len(left), _PRODUCT_ROWS)]
        return np.concatenate([_products(block, right) for block in blocks])
    result = np.zeros((len(left), len(right)))
    for ours, theirs in column_parts(left, right):
        result += ours @ theirs.T
    return result


def _row_sums(rows: Rows, of: Callable[[Floats], Floats] = np.asarray) -> Floats:
    """Return each row's sum of ``of`` its values: float64 [N]."""
    return np.concatenate([of(ready).sum(axis=1) for _, ready in rows.row_parts()])


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


def _in_blocks(left: Rows, right: Rows, pairwise: _Pairwise) -> Floats:
    """Sum ``pairwise`` over D for all pairs of rows, threaded over blocks of ``right``."""
    mirrored = left is right
    result = np.empty((len(left), len(right)))
    blocks = list(parts(len(right), _BLOCK_BYTES // (8 * right.width)))

    def fill(block: slice, rows: slice, ready: Floats) -> None:
        values = right.ready(block)
        buffer = np.empty_like(values)
        for index in range(max(rows.start, block.start if mirrored else 0), rows.stop):
            result[index, block] = pairwise(ready[index - rows.start], values, buffer)

    with ThreadPoolExecutor(available_cpus()) as pool:
        for rows, ready in left.row_parts():
            needed = [block for block in blocks if not mirrored or block.start < rows.stop]
            list(pool.map(fill, needed, repeat(rows), repeat(ready)))
    if mirrored:
        for block in blocks:
            result[block, block.start :] = result[block.start :, block].T
    return result


_PairwiseInGraph: TypeAlias = Callable[[GraphBuilder, str], str]


def places_above_zero(builder: GraphBuilder, row: str) -> str:
    """Add to a graph the places where ``row`` float64 [D] is above 0: int64 [d]."""
    above = builder.node("Cast", row, to=TensorProto.BOOL)
    return builder.node("Squeeze", builder.node("NonZero", above), _axis(builder, 0))


def _above_zero(builder: GraphBuilder, row: str, others: str) -> tuple[str, str]:
    """Return the values of a row above 0, float64 [d, 1], and the others' there, float64 [d, M]."""
    places = places_above_zero(builder, row)
    values = builder.node("Unsqueeze", builder.node("Gather", row, places), _axis(builder, 1))
    return values, builder.node("Gather", others, places, axis=0)


def _chi2_terms_in_graph(builder: GraphBuilder, values: str, others: str) -> str:
    """Add (x - y)^2 / (x + y): float64 [d, 1] and [d, M] to [d, M]."""
    total = builder.node("Max", builder.node("Add", values, others), _number(builder, _TINY))
    difference = builder.node("Sub", values, others)
    return builder.node("Div", builder.node("Mul", difference, difference), total)


def _axis(builder: GraphBuilder, axis: int) -> str:
    return builder.constant("axis", np.array([axis], np.int64))


def _number(builder: GraphBuilder, value: float) -> str:
    return builder.constant("number", np.array(value, np.float64))
