"""The ONNX form of layers that scale and shift: batch and layer normalisation, rescaling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scenetrack.export.steps import Step
from scenetrack.graphs.builder import GraphBuilder


def is_last_axis_norm(layer: Any, rank: int) -> bool:
    """Return whether ``layer`` is a BatchNormalization over the last axis of ``rank`` axes."""
    import keras

    return type(layer) is keras.layers.BatchNormalization and layer.axis in (-1, rank - 1)


def batch_norm_scale(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and shift of a batch normalisation in inference, y = scale * x + shift.

    They are float64, so that folding them into other weights rounds only once.
    """
    scale = 1 / np.sqrt(np.asarray(layer.moving_variance).astype(np.float64) + layer.epsilon)
    if layer.scale:
        scale = scale * np.asarray(layer.gamma)
    shift = -np.asarray(layer.moving_mean) * scale
    return scale, shift + np.asarray(layer.beta) if layer.center else shift


def convert_batch_norm(builder: GraphBuilder, step: Step, tensors: Sequence[str]) -> str | None:
    """Add a BatchNormalization over the last axis as a product and a sum."""
    if not is_last_axis_norm(step.layer, step.rank):
        return None
    return _scaled(builder, tensors[0], *batch_norm_scale(step.layer))


def convert_layer_norm(builder: GraphBuilder, step: Step, tensors: Sequence[str]) -> str | None:
    """Add a LayerNormalization over the last axis."""
    layer = step.layer
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    # Newer Keras has no rms_scaling, which is another layer there.
    if axes not in ([-1], [step.rank - 1]) or getattr(layer, "rms_scaling", False):
        return None
    width = step.inputs[0].shape[-1]
    scale = np.asarray(layer.gamma) if layer.scale else np.ones(width)
    shift = np.asarray(layer.beta) if layer.center else np.zeros(width)
    weights = _constants(builder, scale, shift)
    return builder.node(
        "LayerNormalization", tensors[0], *weights, axis=-1, epsilon=float(layer.epsilon)
    )


def convert_rescaling(builder: GraphBuilder, step: Step, tensors: Sequence[str]) -> str:
    """Add a Rescaling as a product and a sum."""
    scale, offset = (np.asarray(v, np.float64) for v in (step.layer.scale, step.layer.offset))
    return _scaled(builder, tensors[0], scale, offset)


def _scaled(builder: GraphBuilder, tensor: str, scale: np.ndarray, shift: np.ndarray) -> str:
    factor, summand = _constants(builder, scale, shift)
    return builder.node("Add", builder.node("Mul", tensor, factor), summand)


def _constants(builder: GraphBuilder, scale: np.ndarray, shift: np.ndarray) -> tuple[str, str]:
    return (
        builder.constant("scale", scale.astype(np.float32)),
        builder.constant("shift", shift.astype(np.float32)),
    )
