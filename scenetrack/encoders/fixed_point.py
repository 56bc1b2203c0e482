"""Arithmetic that gives the same bits everywhere.

A descriptor half-way between two words must fall to the same one in NumPy and in an ONNX graph, on
any processor and in batches of any size. So products are sums of integers that float64 holds
exactly, in whatever order they are added up: values are first rounded to a grid whose step is a
power of two.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from scenetrack.graphs.builder import GraphBuilder


def steps_per_unit(length: float, bits: int) -> float:
    """The power of two that makes ``length`` at most 2**bits grid steps, if float32 has it."""
    exponent = bits - int(np.frexp(length)[1]) if length else 0
    return float(2.0 ** min(exponent, 100))


def to_grid(values: NDArray[np.float32], scale: float) -> NDArray[np.float64]:
    """``values`` in whole grid steps."""
    # A power of two times a float32 is exact, and so is what is rounded of it.
    scaled = values * np.float32(scale)
    return np.asarray(np.rint(scaled, out=scaled), np.float64)


def grid_in_graph(builder: GraphBuilder, tensor: str, scale: float) -> str:
    """The twin of ``to_grid``: float32 to float64, any shape."""
    scaled = builder.node("Mul", tensor, builder.constant("scale", np.array(scale, np.float32)))
    steps = builder.node("Round", scaled, name="steps")
    return builder.node("Cast", steps, name="float64", to=TensorProto.DOUBLE)
