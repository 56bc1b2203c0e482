"""Normalisation of encodings in float64: signed powers and unit length."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scenetrack.graphs.builder import GraphBuilder

# Lower bound of lengths, so that zeros stay zeros.
_TINY = float(np.finfo(np.float64).tiny)


def signed_power(values: NDArray[np.float64], power: float) -> NDArray[np.float64]:
    """Return sign(v) |v|**power of each value: Perronnin, Sanchez and Mensink 2010, equation 4."""
    return np.asarray(np.sign(values) * np.abs(values) ** power)


def signed_power_in_graph(builder: GraphBuilder, values: str, power: float) -> str:
    """Add ``signed_power`` to the graph."""
    length = builder.node("Abs", values)
    raised = builder.node("Pow", length, builder.constant("power", np.array(power)))
    return builder.node("Mul", builder.node("Sign", values), raised, name="powered")


def unit_length(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide vectors along the last axis by their Euclidean lengths; zeros stay zeros."""
    lengths = np.sqrt(np.einsum("...d,...d->...", values, values))
    return np.asarray(values / np.maximum(lengths, _TINY)[..., None])


def unit_length_in_graph(builder: GraphBuilder, values: str) -> str:
    """Add ``unit_length`` to the graph."""
    axis = builder.constant("last", np.array([-1]))
    squared = builder.node("ReduceSumSquare", values, axis)
    length = builder.node("Sqrt", squared)
    safe = builder.node("Max", length, builder.constant("tiny", np.array(_TINY)))
    return builder.node("Div", values, safe, name="unit")
