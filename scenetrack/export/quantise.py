"""Quantisation to 8-bit integers: one scale per column of weights and per row of activations.

Pixels are 8-bit integers already and are taken as they are. Activations are quantised row by row
(a patch, an image, a position), so that the result of an image does not depend on the other images
of its batch, as it would with DynamicQuantizeLinear.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from scenetrack.export.rewrite import MOVES, Convolution, Linear, Rewrite

# Where x86 has no VNNI, ONNX Runtime multiplies uint8 by int8 with an instruction that adds the
# products of two neighbouring rows in 16 bits and saturates: 255 * 127 twice does not fit. With
# |w| + |w'| <= 128 for neighbours of equal sign it always fits (255 * 128 < 2^15), so that the
# same integers come out on every processor.
_PAIR_LIMIT = 127  # before rounding, which adds less than 1 to each of two
_LARGEST = 127
_ZERO = 128  # zero point of uint8 that represent signed values
_ACCUMULATOR = 2**31 - 1
# Quantising activations costs a few passes over them. Measured on 2 cores, 784 rows of 512 values:
# with 8 and 64 columns float32 was 4 and 1.7 times as fast, with 256 half as fast.
_FEWEST_COLUMNS = 128
_BLOCK = 256  # columns quantised at a time, to bound the memory
_NON_NEGATIVE = frozenset(("Relu", "Sigmoid", "Softmax"))
_TINY = 1e-30  # keeps rows of zeros from dividing by zero


def quantise(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` with its MatMul and Conv of constant weights in 8-bit integers.

    Sums are exact in int32; only weights and activations are rounded, to 8 bits or a little less.
    Narrow layers on activations, such as the last one before the classes, convolutions of
    activations, and layers on activations of another rank than [B, K] stay in float32.

    Raises:
        ExportError: the checker refuses the result.
    """
    rewrite = Rewrite(model)
    for node in rewrite.sources():
        linear, convolution = rewrite.linear(node), rewrite.convolution(node)
        done = False
        if linear is not None:
            done = _linear(rewrite, linear)
        elif convolution is not None:
            done = _convolution(rewrite, convolution)
        if not done:
            rewrite.keep(node)
    return rewrite.finish()


def quantise_columns(
    weights: np.ndarray, *, pairs: bool = True
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return integers and one scale per column: ``weights`` is about ``integers * scales``.

    The sum of each column is kept to half a step. Pixels have a large mean, which a column of
    contrast-normalised networks cancels by its sum of zero; plain rounding would leave about a
    hundred times as much of it.

    Args:
        weights: float [K, M].
        pairs: keep the sums of rows 2i and 2i + 1 within 16 bits, see ``_PAIR_LIMIT``.

    Returns:
        int8 [K, M] within +-127, float32 [M].
    """
    integers = np.empty(weights.shape, np.int8)
    scales = np.empty(weights.shape[1], np.float32)
    for start in range(0, weights.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        columns = np.ascontiguousarray(weights[:, block].T, np.float32)  # M x K
        scales[block] = _scales(columns, pairs)
        integers[:, block] = _round_keeping_sums(columns / scales[block, None]).T
    return integers, scales


def _scales(columns: np.ndarray, pairs: bool) -> NDArray[np.float32]:
    """Return the finest scale of each row of [M, K] that keeps integers and sums in range."""
    padded = np.pad(columns, ((0, 0), (0, columns.shape[1] % 2)))
    up, down = np.maximum(padded, 0), np.maximum(-padded, 0)
    if pairs:
        peaks = [(side[:, ::2] + side[:, 1::2]).max(axis=1) / _PAIR_LIMIT for side in (up, down)]
    else:
        peaks = [side.max(axis=1) / _LARGEST for side in (up, down)]
    # All pixels at 255 may not overflow the sum, rounding included.
    room = _ACCUMULATOR / 255 - columns.shape[1]
    sums = [side.sum(axis=1, dtype=np.float64) / room for side in (up, down)]
    scales = np.max([*peaks, *sums], axis=0).astype(np.float32)
    # A little larger, for float32's quotients may round up past the limits.
    return np.where(scales > 0, scales * np.float32(1 + 1e-6), np.float32(1))


def _round_keeping_sums(values: np.ndarray) -> NDArray[np.int8]:
    """Round [M, K] to the nearest integers, a few of each row the other way to keep its sum."""
    rounded = np.rint(values)
    left = values - rounded
    missing = np.rint(values.sum(axis=1, dtype=np.float64)) - rounded.sum(axis=1, dtype=np.float64)
    for sign in (1, -1):
        rows = np.flatnonzero(sign * missing > 0)
        if not len(rows):
            continue
        wanted = np.abs(missing[rows]).astype(np.int64)
        most = int(wanted.max())
        gain = sign * left[rows]
        nearest = np.argpartition(gain, -most, axis=1)[:, -most:]
        order = np.argsort(-np.take_along_axis(gain, nearest, axis=1), axis=1)
        nearest = np.take_along_axis(nearest, order, axis=1)
        step = sign * (np.arange(most) < wanted[:, None])
        moved = np.take_along_axis(rounded[rows], nearest, axis=1) + step
        block = rounded[rows]
        np.put_along_axis(block, nearest, moved, axis=1)
        rounded[rows] = block
    integers: NDArray[np.int8] = rounded.astype(np.int8)
    return integers


def _linear(rewrite: Rewrite, layer: Linear) -> bool:
    """Add a product in integers; return False, adding nothing, where float32 is better."""
    pixels = rewrite.pixels(layer.tensor)
    if pixels is None and layer.weights.shape[1] < _FEWEST_COLUMNS:
        return False
    if pixels is not None:
        left = rewrite.replay(pixels.moves, pixels.source)
        _pixel_product(rewrite, left, layer.weights, layer.result)
        return True
    if rewrite.rank(layer.tensor) != 2:
        return False
    _row_product(rewrite, layer)
    return True


def _pixel_product(rewrite: Rewrite, left: str, weights: np.ndarray, result: str) -> None:
    """Add ``result = left @ weights`` for uint8 ``left``."""
    integers, scales = quantise_columns(weights)
    sums = rewrite.node(
        "MatMulInteger",
        left,
        rewrite.add_constant(f"{result}/int8", integers),
        name=f"{result}/sums",
    )
    values = rewrite.node("Cast", sums, to=TensorProto.FLOAT)
    rewrite.node("Mul", values, rewrite.add_constant(f"{result}/scale", scales), result=result)


def _row_product(rewrite: Rewrite, layer: Linear) -> None:
    """Add a product of float32 rows [B, K], each quantised by its own scale."""
    integers, scales = quantise_columns(layer.weights)
    kernel = rewrite.add_constant(f"{layer.result}/int8", integers)
    rows, spread, zero = _quantise_rows(rewrite, layer.tensor)
    product = [rows, kernel, zero] if zero else [rows, kernel]
    sums = rewrite.node("MatMulInteger", *product, name=f"{layer.result}/sums")
    values = rewrite.node("Cast", sums, to=TensorProto.FLOAT)
    scale = rewrite.add_constant(f"{layer.result}/scale", scales)
    last = rewrite.add_constant("last", np.array([1], np.int64))
    values = rewrite.node("Mul", values, rewrite.node("Unsqueeze", spread, last))
    rewrite.node("Mul", values, scale, result=layer.result)


def _quantise_rows(rewrite: Rewrite, tensor: str) -> tuple[str, str, str]:
    """Quantise float32 rows: uint8 [B, K], scales float32 [B], zero point ("" for none)."""
    signed = not _is_non_negative(rewrite, tensor)
    size = rewrite.node("Abs", tensor) if signed else tensor
    axis = rewrite.add_constant("axis", np.array([1], np.int64))
    peak = rewrite.node("ReduceMax", size, axis, keepdims=0)
    step = rewrite.add_constant("step", np.float32(1 / (_LARGEST if signed else 255)))
    tiny = rewrite.add_constant("tiny", np.float32(_TINY))
    scale = rewrite.node("Max", rewrite.node("Mul", peak, step), tiny)
    # QuantizeLinear by row requires one zero point per row, although all are equal.
    fill = helper.make_tensor("value", TensorProto.UINT8, [1], [_ZERO if signed else 0])
    zeros = rewrite.node("ConstantOfShape", rewrite.node("Shape", scale), value=fill)
    rows = rewrite.node("QuantizeLinear", tensor, scale, zeros, axis=0)
    return rows, scale, rewrite.add_constant("zero", np.uint8(_ZERO)) if signed else ""


def _is_non_negative(rewrite: Rewrite, tensor: str) -> bool:
    node = rewrite.producer(tensor)
    while node is not None and node.op_type in MOVES:
        node = rewrite.producer(node.input[0])
    return node is not None and node.op_type in _NON_NEGATIVE


def _convolution(rewrite: Rewrite, layer: Convolution) -> bool:
    """Add a convolution of pixels in integers; return False for a convolution of activations."""
    pixels = rewrite.pixels(layer.tensor)
    if pixels is None:
        return False
    planes = rewrite.replay(pixels.moves, pixels.source)
    result = f"{layer.result}/unbiased" if layer.bias is not None else layer.result
    if layer.is_pointwise:
        # One product per position: MatMulInteger has the faster kernels.
        rows = rewrite.node("Transpose", planes, perm=[0, 2, 3, 1])
        product = f"{result}/rows"
        _pixel_product(rewrite, rows, layer.weights[:, :, 0, 0].T, product)
        rewrite.node("Transpose", product, perm=[0, 3, 1, 2], result=result)
    else:
        _integer_convolution(rewrite, layer, planes, result)
    if layer.bias is not None:
        shape = (1, -1, *(1,) * (layer.weights.ndim - 2))
        shift = rewrite.add_constant(f"{result}/bias", layer.bias.reshape(shape))
        rewrite.node("Add", result, shift, result=layer.result)
    return True


def _integer_convolution(rewrite: Rewrite, layer: Convolution, planes: str, result: str) -> None:
    weights = layer.weights
    # ONNX Runtime has no fast int8 kernels for ConvInteger; with uint8 it never saturates.
    integers, scales = quantise_columns(weights.reshape(len(weights), -1).T, pairs=False)
    shifted = (integers.T.astype(np.int16) + _ZERO).astype(np.uint8).reshape(weights.shape)
    kernel = rewrite.add_constant(f"{result}/uint8", shifted)
    zero = rewrite.add_constant("zero", np.uint8(_ZERO))
    sums = rewrite.node(
        "ConvInteger", planes, kernel, "", zero, name=f"{result}/sums", **layer.attributes
    )
    values = rewrite.node("Cast", sums, to=TensorProto.FLOAT)
    shape = (1, -1, *(1,) * (weights.ndim - 2))
    scale = rewrite.add_constant(f"{result}/scale", scales.reshape(shape))
    rewrite.node("Mul", values, scale, result=result)
