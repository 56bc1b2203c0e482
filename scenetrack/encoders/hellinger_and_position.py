"""Hellinger roots of descriptors, and positions appended to them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from scenetrack.errors import InputError
from scenetrack.graphs.builder import GraphBuilder

_TINY = float(np.finfo(np.float64).tiny)


def hellinger_root(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return square roots of L1-normalised values [..., D]; zeros where all values are 0."""
    # Libraries round roots of float32 differently; roots of float64 agree after rounding.
    rows = np.asarray(values, np.float64)
    if rows.size and rows.min() < 0:
        raise InputError(
            "descriptors that are square-rooted must not be negative. Received: a smallest value "
            f"of {rows.min():.3g}; leave out the square root"
        )
    totals = np.maximum(rows.sum(axis=-1, keepdims=True), _TINY)
    return np.asarray(np.sqrt(rows / totals), np.float32)


def hellinger_root_in_graph(builder: GraphBuilder, rows: str) -> str:
    """Add ``hellinger_root`` to the graph: float32 [n, D]."""
    with builder.scope("roots"):
        values = builder.node("Cast", rows, name="float64", to=TensorProto.DOUBLE)
        total = builder.node("ReduceSum", values, builder.constant("axis", np.array([1])))
        least = builder.node("Max", total, builder.constant("tiny", np.array(_TINY)))
        result = builder.node("Sqrt", builder.node("Div", values, least))
        return builder.node("Cast", result, to=TensorProto.FLOAT)


def spatial_coordinates(positions: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """Return the scaled offsets of positions [..., 2] in [0, 1] from the image centre."""
    return ((np.asarray(positions, np.float64) - 0.5) * scale).astype(np.float32)
