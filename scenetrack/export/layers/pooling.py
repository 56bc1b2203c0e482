"""The ONNX form of pooling layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scenetrack.export.steps import Step
from scenetrack.graphs.builder import GraphBuilder


def convert_global_average(builder: GraphBuilder, step: Step, tensors: Sequence[str]) -> str | None:
    """Add a GlobalAveragePooling2D of channels-last data."""
    if step.layer.data_format != "channels_last":
        return None
    axes = builder.constant("axes", np.array([1, 2], np.int64))
    return builder.node("ReduceMean", tensors[0], axes, keepdims=int(step.layer.keepdims))
