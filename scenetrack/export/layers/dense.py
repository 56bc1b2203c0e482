"""The ONNX form of Dense layers, with a batch normalisation folded into the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scenetrack.export.layers.activation import add_activation
from scenetrack.export.layers.normalisation import batch_norm_scale
from scenetrack.export.steps import Step
from scenetrack.graphs.builder import GraphBuilder


def is_plain_dense(layer: Any) -> bool:
    """Return whether ``layer`` is a Dense without activation, so that a normalisation folds in."""
    import keras

    return type(layer) is keras.layers.Dense and layer.activation is keras.activations.linear


def dense_weights(layer: Any, norm: Any | None = None) -> tuple[np.ndarray, np.ndarray] | None:
    """Return kernel [D, M] and bias [M] of a Dense layer; None for a quantised layer.

    The batch normalisation ``norm`` that follows is folded in. With s = gamma / sqrt(variance +
    epsilon): s * (W'x + b - mean) + beta is a Dense layer again, with the kernel W * s and the
    bias s * (b - mean) + beta.
    """
    if getattr(layer, "quantization_mode", None):
        return None
    kernel = np.asarray(layer.kernel, np.float64)
    bias = np.asarray(layer.bias, np.float64) if layer.use_bias else np.zeros(kernel.shape[1])
    if norm is not None:
        scale, shift = batch_norm_scale(norm)
        kernel, bias = kernel * scale, bias * scale + shift
    return kernel, bias


def convert_dense(
    builder: GraphBuilder, step: Step, tensors: Sequence[str], norm: Any | None = None
) -> str | None:
    """Add a Dense layer, with the batch normalisation ``norm`` that follows it folded in."""
    weights = dense_weights(step.layer, norm)
    if weights is None:
        return None
    kernel, bias = (values.astype(np.float32) for values in weights)
    result = builder.node("MatMul", tensors[0], builder.constant("kernel", kernel))
    if bias.any():
        result = builder.node("Add", result, builder.constant("bias", bias))
    return add_activation(builder, step.layer.activation, result)
