"""Graphs of lower precision."""

import onnx

from scenetrack.errors import ExportError


def with_precision(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """``model`` itself for fp32; the others are on their way."""
    if precision != "fp32":
        raise ExportError(f"precision fp32 is the only one yet. Received: {precision!r}")
    return model
