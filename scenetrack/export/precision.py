"""Precision of a graph's layers: float32, float16 or 8-bit integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx

from scenetrack.config import PRECISIONS
from scenetrack.errors import ConfigError
from scenetrack.export.half import to_half
from scenetrack.export.quantise import quantise
from scenetrack.export.rewrite import without_gemm

_REWRITES: Mapping[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "fp16": to_half,
    "int8": quantise,
}


def with_precision(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """Return ``model`` with its layers in ``precision``; inputs and outputs do not change.

    Args:
        model: a graph of this package's opset, with float32 weights; it is not changed.
        precision: "fp32", which returns the model itself; "fp16", see ``half.to_half``;
            "int8", see ``quantise.quantise``.

    Raises:
        ConfigError: the precision is unknown.
        ExportError: the checker refuses the result.
    """
    if precision not in PRECISIONS:
        raise ConfigError(
            f"precision must be one of: {', '.join(PRECISIONS)}. Received: {precision!r}"
        )
    if precision == "fp32":
        return model
    return _REWRITES[precision](without_gemm(model))
