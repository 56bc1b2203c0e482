"""Conversion of a graph's layers to float16, which GPUs multiply several times as fast."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from scenetrack.export.rewrite import MOVES, Convolution, Linear, Rewrite, attributes, uses

# Operators that may follow a layer in float16 without a cast to float32.
_ACTIVATIONS = ("Clip", "Elu", "Gelu", "LeakyRelu", "Relu", "Sigmoid", "Tanh")
_FOLLOWERS = frozenset((*_ACTIVATIONS, "Add", "MaxPool", "Mul", "Sub", "Sum"))
_LARGEST = float(np.finfo(np.float16).max)
_LARGEST_PIXEL = 255
_SHARING = 16


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` with MatMul and Conv of constant weights, and what follows, in float16.

    Everything before the first of them (means, deviations), and everything else, keeps its
    precision; integers of up to 8 bits, as pixels are, are exact in float16. A layer
    on pixels whose sums might pass 65504 has its weights divided by a power of two, and its
    result multiplied in float32.

    Raises:
        ExportError: the checker refuses the result.
    """
    halving = _Halving(Rewrite(model))
    for node in halving.rewrite.sources():
        halving.add(node)
    # In order: a set has another one in each process.
    for name in sorted(halving.rewrite.roots()):
        halving.to_float(name)
    return halving.rewrite.finish()


def halve_columns(weights: np.ndarray) -> NDArray[np.float16]:
    """Round float32 weights [K, M] to float16, the sum of each column kept almost exactly.

    A column that sums to zero cancels the mean of the pixels, which is many times what remains;
    the sum of K rounding errors would let a part of it through. This sum is given to the smallest
    weights of the column, where float16 is finest: first in shares, then the rest to one weight.
    """
    halves = weights.astype(np.float16)
    for count in (min(_SHARING, len(weights)), 1):
        smallest = np.argpartition(np.abs(halves), count - 1, axis=0)[:count]
        lost = (weights - halves.astype(np.float64)).sum(axis=0) / count
        shared = np.take_along_axis(halves, smallest, axis=0) + lost
        np.put_along_axis(halves, smallest, shared.astype(np.float16), axis=0)
    return halves


class _Halving:
    """Converts a graph node by node; a tensor may exist in float32, in float16 or in both."""

    def __init__(self, rewrite: Rewrite) -> None:
        self.rewrite = rewrite
        self._halves: dict[str, str] = {}  # float16 name by the model's name
        self._computed: set[str] = set()  # computed in float16, not cast to it
        self._only_half: set[str] = set()  # computed ones without a float32 version

    def add(self, node: onnx.NodeProto) -> None:
        linear, convolution = self.rewrite.linear(node), self.rewrite.convolution(node)
        if linear is not None:
            self._linear(linear)
        elif convolution is not None:
            self._convolution(convolution)
        elif not self._follow(node):
            for name in uses(node):
                self.to_float(name)
            self.rewrite.keep(node)

    def to_float(self, name: str) -> None:
        """Add the float32 version of a tensor of the model if only float16 exists."""
        if name in self._only_half:
            self._only_half.remove(name)
            self.rewrite.node("Cast", self._halves[name], to=TensorProto.FLOAT, result=name)

    def _to_half(self, name: str) -> str:
        if name not in self._halves:
            pixels = self.rewrite.pixels(name)
            if pixels is not None:
                moved = self.rewrite.replay(pixels.moves, pixels.source)
                self._halves[name] = self.rewrite.node("Cast", moved, to=TensorProto.FLOAT16)
            else:
                self._halves[name] = self.rewrite.node("Cast", name, to=TensorProto.FLOAT16)
        return self._halves[name]

    def _linear(self, layer: Linear) -> None:
        power = self._overflow(layer.tensor, layer.weights)
        halves = halve_columns(np.ldexp(layer.weights, -power))
        kernel = self.rewrite.add_constant(f"{layer.result}/half", halves)
        half = self.rewrite.node("MatMul", self._to_half(layer.tensor), kernel)
        self._give(layer.result, half, power)

    def _convolution(self, layer: Convolution) -> None:
        columns = layer.weights.reshape(len(layer.weights), -1).T
        power = self._overflow(layer.tensor, columns)
        halves = halve_columns(np.ldexp(columns, -power)).T.reshape(layer.weights.shape)
        kernel = self.rewrite.add_constant(f"{layer.result}/half", halves)
        inputs = [self._to_half(layer.tensor), kernel]
        if layer.bias is not None:
            shrunk = np.ldexp(layer.bias, -power).astype(np.float16)
            inputs.append(self.rewrite.add_constant(f"{layer.result}/bias", shrunk))
        half = self.rewrite.node("Conv", *inputs, **layer.attributes)
        self._give(layer.result, half, power)

    def _give(self, result: str, half: str, power: int) -> None:
        if not power:
            self._keep_half(result, half)
            return
        values = self.rewrite.node("Cast", half, to=TensorProto.FLOAT)
        factor = self.rewrite.add_constant("factor", np.float32(2.0**power))
        self.rewrite.node("Mul", values, factor, result=result)

    def _follow(self, node: onnx.NodeProto) -> bool:
        """Repeat a simple node on float16; False where float32 is required or costs no more."""
        if node.op_type not in _FOLLOWERS | MOVES or len(node.output) != 1:
            return False
        count = 1 if node.op_type in MOVES else len(node.input)
        inputs = [self._operand(name) for name in node.input[:count]]
        if None in inputs or self._computed.isdisjoint(node.input[:count]):
            return False
        given = [name for name in inputs if name is not None]
        half = self.rewrite.node(
            node.op_type, *given, *node.input[count:], name=node.name, **attributes(node)
        )
        self._keep_half(node.output[0], half)
        return True

    def _keep_half(self, name: str, half: str) -> None:
        self._halves[name] = half
        self._computed.add(name)
        self._only_half.add(name)

    def _operand(self, name: str) -> str | None:
        """Return the float16 version of a constant or a computed tensor; None for any other."""
        if not name or name in self._computed:
            return self._halves.get(name, "")
        value = self.rewrite.constant(name)
        if value is None or value.dtype != np.float32 or np.abs(value).max(initial=0) > _LARGEST:
            return None
        return self.rewrite.add_constant(name, value.astype(np.float16))

    def _overflow(self, tensor: str, weights: np.ndarray) -> int:
        """Return the power of two that keeps products of pixels and weights [K, M] in range."""
        if self.rewrite.pixels(tensor) is None:
            return 0
        bound = _LARGEST_PIXEL * float(np.abs(weights).sum(axis=0, dtype=np.float64).max(initial=0))
        return max(0, int(np.ceil(np.log2(bound / _LARGEST)))) if bound else 0
