"""Pillow's bilinear resize as an ONNX graph, equal to the bit: networks are trained on it.

ONNX's own antialiased Resize differs from it by up to 15 grey levels at the borders. Source:
Pillow, ``src/libImaging/Resample.c``.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from scenetrack.graphs.builder import GraphBuilder

# Pillow's fixed point: weights are multiples of 2**-22, sums are rounded to whole grey levels.
_PRECISION_BITS = 22
# A weight of 23 bits is three bytes, for which there are products with bytes in exact integers.
_BYTE, _BYTES = 256, 3


def resize_in_graph(builder: GraphBuilder, images: str, size: int) -> str:
    """Add the resize of uint8 [N, H, W, 3], any H and W, to uint8 [N, size, size, 3].

    Images that have this size already pass through at no cost.
    """
    with builder.scope("resize"):
        wanted = builder.constant("size", np.array([size, size], np.int64))
        lengths = builder.node("Shape", images, start=1, end=3)
        same = builder.node(
            "ReduceMin",
            builder.node("Cast", builder.node("Equal", lengths, wanted), to=TensorProto.INT32),
            keepdims=0,
        )
        resized = builder.choose(
            builder.node("Cast", same, to=TensorProto.BOOL),
            lambda inner: images,
            lambda inner: _resized(inner, images, lengths, size),
        )
        shape = builder.constant("shape", np.array([-1, size, size, 3], np.int64))
        return builder.node("Reshape", resized, shape)


def _resized(builder: GraphBuilder, images: str, lengths: str, size: int) -> str:
    """Resize the width, then the height, each rounded to bytes, as Pillow does."""
    height, width = builder.node("Split", lengths, outputs=2, num_outputs=2)
    planes = builder.node("Transpose", images, perm=[0, 1, 3, 2])  # N x H x 3 x W
    narrow = _rounded(
        builder,
        [
            builder.node("MatMulInteger", planes, weights)
            for weights in _weights(builder, width, size)
        ],
    )  # N x H x 3 x size
    tall = builder.constant("rows", np.array([0, 0, 3 * size], np.int64))
    rows = builder.node("Reshape", narrow, tall)  # N x H x 3 size
    small = _rounded(
        builder,
        [
            builder.node("MatMulInteger", builder.node("Transpose", weights, perm=[1, 0]), rows)
            for weights in _weights(builder, height, size)
        ],
    )  # N x size x 3 size
    parted = builder.constant("planes", np.array([0, 0, 3, size], np.int64))
    return builder.node("Transpose", builder.node("Reshape", small, parted), perm=[0, 1, 3, 2])


def _weights(builder: GraphBuilder, length: str, size: int) -> list[str]:
    """Add the weights of the triangle filter from ``length`` (int64 [1]) to ``size`` samples.

    Returns their three bytes, low first, each uint8 [length, size]. The operations and their order
    are Pillow's.
    """
    zero, half, one = (_double(builder, "number", value) for value in (0.0, 0.5, 1.0))
    scale = builder.node(
        "Div", _cast(builder, length, TensorProto.DOUBLE), _double(builder, "size", size)
    )
    support = builder.node("Max", scale, one)
    places = builder.constant("places", np.arange(size) + 0.5)
    centers = builder.node("Mul", places, scale)
    first = _whole(builder, builder.node("Add", builder.node("Sub", centers, support), half))
    last = _whole(builder, builder.node("Add", builder.node("Add", centers, support), half))
    pixels = _pixels(builder, length)
    offsets = builder.node(
        "Add", builder.node("Sub", _cast(builder, pixels, TensorProto.DOUBLE), centers), half
    )
    distances = builder.node("Abs", builder.node("Mul", offsets, builder.node("Div", one, support)))
    heights = builder.node("Max", builder.node("Sub", one, distances), zero)
    inside = builder.node(
        "And",
        builder.node("GreaterOrEqual", pixels, first),
        builder.node("Less", pixels, last),
    )
    weights = builder.node("Where", inside, heights, zero)
    axis = builder.constant("axis", np.array([0], np.int64))
    shares = builder.node("Div", weights, builder.node("ReduceSum", weights, axis, keepdims=1))
    steps = builder.node("Mul", shares, _double(builder, "steps", 2**_PRECISION_BITS))
    return _bytes(builder, _whole(builder, builder.node("Add", steps, half)))


def _pixels(builder: GraphBuilder, length: str) -> str:
    """Add the numbers 0 to ``length`` - 1 as int64 [length, 1]."""
    scalar = builder.node("Squeeze", length)
    bounds = [builder.constant("bound", np.array(value, np.int64)) for value in (0, 1)]
    column = builder.constant("column", np.array([-1, 1], np.int64))
    return builder.node("Reshape", builder.node("Range", bounds[0], scalar, bounds[1]), column)


def _bytes(builder: GraphBuilder, whole: str) -> list[str]:
    """Split int64 values below 2**24 into their three bytes, low first."""
    base = builder.constant("base", np.array(_BYTE, np.int64))
    parts = []
    for _ in range(_BYTES):
        parts.append(_cast(builder, builder.node("Mod", whole, base), TensorProto.UINT8))
        whole = builder.node("Div", whole, base)
    return parts


def _rounded(builder: GraphBuilder, parts: list[str]) -> str:
    """Sum int32 products with the bytes of the weights, rounded to uint8."""
    # 255 * 2**22 and the rounding stay below 2**31.
    total = builder.constant("round", np.array(2 ** (_PRECISION_BITS - 1), np.int32))
    for index, part in enumerate(parts):
        weight = builder.constant("weight", np.array(_BYTE**index, np.int32))
        total = builder.node("Add", total, builder.node("Mul", part, weight))
    unit = builder.constant("unit", np.array(2**_PRECISION_BITS, np.int32))
    levels = builder.node("Div", total, unit)
    bounds = [builder.constant("level", np.array(value, np.int32)) for value in (0, 255)]
    return _cast(builder, builder.node("Clip", levels, *bounds), TensorProto.UINT8)


def _whole(builder: GraphBuilder, values: str) -> str:
    return _cast(builder, values, TensorProto.INT64)


def _cast(builder: GraphBuilder, tensor: str, kind: int) -> str:
    return builder.node("Cast", tensor, to=kind)


def _double(builder: GraphBuilder, name: str, value: float) -> str:
    return builder.constant(name, np.array(value, np.float64))
