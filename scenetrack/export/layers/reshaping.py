"""The ONNX form of layers that only change the shape: Flatten, Reshape."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scenetrack.export.steps import Step
from scenetrack.graphs.builder import GraphBuilder


def convert_flatten(builder: GraphBuilder, step: Step, tensors: Sequence[str]) -> str | None:
    """Add a Flatten of channels-last data."""
    if step.layer.data_format != "channels_last":
        return None
    return builder.node("Flatten", tensors[0], axis=1)


def convert_reshape(builder: GraphBuilder, step: Step, tensors: Sequence[str]) -> str:
    """Add a Reshape of all axes but the first."""
    # In ONNX a zero keeps the length of the axis: here the batch.
    shape = np.array([0, *step.layer.target_shape], np.int64)
    return builder.node("Reshape", tensors[0], builder.constant("shape", shape))
