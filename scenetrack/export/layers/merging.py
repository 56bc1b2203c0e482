"""The ONNX form of layers with several inputs: Concatenate, Add."""

from __future__ import annotations

from collections.abc import Sequence

from scenetrack.export.steps import Step
from scenetrack.graphs.builder import GraphBuilder


def convert_concatenate(builder: GraphBuilder, step: Step, tensors: Sequence[str]) -> str:
    """Add a Concatenate along the layer's axis."""
    return builder.node("Concat", *tensors, axis=step.layer.axis)


def convert_add(builder: GraphBuilder, step: Step, tensors: Sequence[str]) -> str:
    """Add the sum of the input tensors."""
    return builder.node("Sum", *tensors)
