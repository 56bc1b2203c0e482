"""Fixed-point arithmetic, which gives the same bits in NumPy and in ONNX graphs.

A descriptor half-way between two visual words must be assigned to the same word in both, on any
processor and in batches of any size. So values are first rounded to a grid whose step is a power of
two: products are then sums of integers that float64 holds exactly in any order of addition.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from scenetrack.graphs.builder import GraphBuilder


def steps_per_unit(length: float, bits: int) -> float:
    """Return the power of two, up to 2**100, that makes ``length`` at most 2**bits grid steps."""
    exponent = bits - int(np.frexp(length)[1]) if length else 0
    return float(2.0 ** min(exponent, 100))


def to_grid(values: NDArray[np.float32], scale: float) -> NDArray[np.float64]:
    """Return ``values`` in whole grid steps."""
    # A power of two times a float32 is exact, and so is the rounded product.
    scaled = values * np.float32(scale)
    return np.asarray(np.rint(scaled, out=scaled), np.float64)


def grid_in_graph(builder: GraphBuilder, tensor: str, scale: float) -> str:
    """Add ``to_grid`` to the graph: float32 to float64, any shape."""
    scaled = builder.node("Mul", tensor, builder.constant("scale", np.array(scale, np.float32)))
    steps = builder.node("Round", scaled, name="steps")
    return builder.node("Cast", steps, name="float64", to=TensorProto.DOUBLE)
