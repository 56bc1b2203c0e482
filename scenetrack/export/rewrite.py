"""Node-by-node rewriting of an ONNX graph that keeps its inputs, outputs and metadata."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from scenetrack.graphs.builder import check_model

# Operators that only rearrange the values of their first input.
MOVES = frozenset(
    [
        "DepthToSpace",
        "Flatten",
        "Gather",
        "Identity",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    ]
)


# No shape has more axes than this; longer constants are therefore not needed to infer shapes.
_LARGEST_SHAPE = 64


@dataclass(frozen=True)
class Linear:
    """Product with constant weights: ``result = tensor @ weights``, weights float32 [K, M]."""

    tensor: str
    weights: np.ndarray
    result: str


@dataclass(frozen=True)
class Convolution:
    """Conv with constant weights float32 [M, C, ...] and an optional bias float32 [M]."""

    tensor: str
    weights: np.ndarray
    bias: np.ndarray | None
    result: str
    attributes: dict[str, Any]

    @property
    def is_pointwise(self) -> bool:
        """Whether the kernel is 1 x 1, with stride 1 and no padding: one product per position."""
        ones = (self.attributes.get(name, 1) for name in ("strides", "group"))
        return (
            self.weights.shape[2:] == (1, 1)
            and all(np.all(np.asarray(value) == 1) for value in ones)
            and not any(self.attributes.get("pads", ()))
        )


@dataclass(frozen=True)
class Pixels:
    """A float32 tensor that is the uint8 tensor ``source`` rearranged by the nodes ``moves``."""

    source: str
    moves: tuple[onnx.NodeProto, ...]


class Rewrite:
    """Builds a changed copy of ``model``: ``keep`` or replace its nodes, one after the other.

    A node that replaces another must have the same output name, unless nothing uses it any more.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._producers = {name: node for node in model.graph.node for name in node.output}
        self._taken = set(_all_names(model.graph))
        self._nodes: list[onnx.NodeProto] = []
        self._added: list[TensorProto] = []
        self._replayed: dict[tuple[str, str], str] = {}
        inferred = onnx.shape_inference.infer_shapes(_without_data(model)).graph
        every = (*inferred.input, *inferred.output, *inferred.value_info)
        self._types = {info.name: info.type.tensor_type for info in every}

    def sources(self) -> Iterator[onnx.NodeProto]:
        """Yield the nodes of the model, each after those whose outputs it takes."""
        yield from self._model.graph.node

    def roots(self) -> set[str]:
        """Return the graph's outputs and all unused tensors, which may become outputs later."""
        taken = {name for node in self._model.graph.node for name in uses(node)}
        outputs = {output.name for output in self._model.graph.output}
        return outputs | (self._producers.keys() - taken)

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """Return the node that computes ``tensor``; None for an input or a constant."""
        return self._producers.get(tensor)

    def constant(self, name: str) -> np.ndarray | None:
        """Return the value of a constant of the graph; None for any other tensor."""
        found = self._constants.get(name)
        return None if found is None else numpy_helper.to_array(found)

    def rank(self, tensor: str) -> int | None:
        """Return the number of axes of ``tensor``; None where it is not known."""
        known = self._types.get(tensor)
        return len(known.shape.dim) if known is not None and known.HasField("shape") else None

    def is_float32(self, tensor: str) -> bool:
        """Return whether ``tensor`` is known to be float32."""
        known = self._types.get(tensor)
        if known is not None:
            return bool(known.elem_type == TensorProto.FLOAT)
        found = self._constants.get(tensor)
        return found is not None and found.data_type == TensorProto.FLOAT

    def linear(self, node: onnx.NodeProto) -> Linear | None:
        """Return ``node`` as a product with constant weights; None where it is not one."""
        if node.op_type != "MatMul":
            return None
        weights = self._weights(node, 2)
        return None if weights is None else Linear(node.input[0], weights, node.output[0])

    def convolution(self, node: onnx.NodeProto) -> Convolution | None:
        """Return ``node`` as a convolution with constant weights; None where it is not one."""
        weights = self._weights(node, None) if node.op_type == "Conv" else None
        if weights is None:
            return None
        bias_name = node.input[2] if len(node.input) > 2 else ""
        bias = self.constant(bias_name)
        if bias_name and bias is None:
            return None
        return Convolution(node.input[0], weights, bias, node.output[0], attributes(node))

    def pixels(self, tensor: str) -> Pixels | None:
        """Return the uint8 source of a float32 ``tensor``; None unless it is pixels rearranged."""
        moves: list[onnx.NodeProto] = []
        while (node := self.producer(tensor)) is not None and node.op_type in MOVES:
            moves.append(node)
            tensor = node.input[0]
        if node is None or node.op_type != "Cast" or not self.is_float32(node.output[0]):
            return None
        source = self._types.get(node.input[0])
        if source is None or source.elem_type != TensorProto.UINT8:
            return None
        return Pixels(node.input[0], tuple(reversed(moves)))

    def replay(self, moves: Iterable[onnx.NodeProto], tensor: str) -> str:
        """Apply the same rearrangements as in the model to ``tensor``; each is added once."""
        for move in moves:
            key = (move.output[0], tensor)
            if key not in self._replayed:
                name = f"{move.name or move.op_type}/moved"
                inputs = (tensor, *move.input[1:])
                self._replayed[key] = self.node(
                    move.op_type, *inputs, name=name, **attributes(move)
                )
            tensor = self._replayed[key]
        return tensor

    def keep(self, node: onnx.NodeProto) -> None:
        """Add ``node`` without changes."""
        self._nodes.append(node)

    def add_constant(self, name: str, value: np.ndarray | np.generic) -> str:
        """Store ``value`` and return its unique name."""
        unique = self._unique(name)
        self._added.append(numpy_helper.from_array(np.asarray(value, order="C"), unique))
        return unique

    def node(
        self, op_type: str, *inputs: str, name: str = "", result: str = "", **attrs: Any
    ) -> str:
        """Add a node and return its only output, named ``result`` or else by a unique name."""
        unique = self._unique(name or (f"{result}/{op_type}" if result else op_type))
        output = result or unique
        self._nodes.append(helper.make_node(op_type, list(inputs), [output], name=unique, **attrs))
        return output

    def finish(self) -> onnx.ModelProto:
        """Return the checked model, without nodes and constants that are not used any more.

        Tensors that the original model did not use stay, together with all that they depend on.
        """
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        roots = self.roots()
        nodes = _leading_to(self._nodes, roots)
        used = roots | {name for node in nodes for name in uses(node)}
        for field in ("node", "initializer", "value_info"):
            model.graph.ClearField(field)
        model.graph.node.extend(nodes)
        kept = [*self._model.graph.initializer, *self._added]
        model.graph.initializer.extend(tensor for tensor in kept if tensor.name in used)
        check_model(model)
        return model

    def _weights(self, node: onnx.NodeProto, rank: int | None) -> np.ndarray | None:
        array = self.constant(node.input[1])
        if array is None or array.dtype != np.float32 or rank not in (None, array.ndim):
            return None
        return array

    def _unique(self, name: str) -> str:
        unique, count = name, 1
        while unique in self._taken:
            unique = f"{name}_{count}"
            count += 1
        self._taken.add(unique)
        return unique


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes by name."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def without_gemm(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` with each Gemm of constant weights as a MatMul and an Add."""
    rewrite = Rewrite(model)
    for node in rewrite.sources():
        if node.op_type != "Gemm" or not _split_gemm(rewrite, node):
            rewrite.keep(node)
    return rewrite.finish()


def _split_gemm(rewrite: Rewrite, node: onnx.NodeProto) -> bool:
    settings = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0, **attributes(node)}
    weights = rewrite.constant(node.input[1])
    bias_name = node.input[2] if len(node.input) > 2 else ""
    bias = rewrite.constant(bias_name) if bias_name else np.zeros(1, np.float32)
    if settings["transA"] or weights is None or bias is None or weights.dtype != np.float32:
        return False
    kernel = np.float32(settings["alpha"]) * (weights.T if settings["transB"] else weights)
    shift = np.float32(settings["beta"]) * bias
    product = rewrite.node("MatMul", node.input[0], rewrite.add_constant(f"{node.name}/w", kernel))
    rewrite.node(
        "Add", product, rewrite.add_constant(f"{node.name}/b", shift), result=node.output[0]
    )
    return True


def _without_data(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy the model without the data of large constants, on which no shape can depend."""
    light = onnx.ModelProto()
    light.CopyFrom(model)
    for tensor in light.graph.initializer:
        if max((len(tensor.dims), *tensor.dims)) > _LARGEST_SHAPE:
            kept = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            tensor.CopyFrom(kept)
    return light


def _all_names(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (tensor.name for tensor in graph.initializer)
    yield from (info.name for info in (*graph.input, *graph.output))
    for node in graph.node:
        yield node.name
        yield from node.output
        for inner in _subgraphs(node):
            yield from _all_names(inner)


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for item in node.attribute:
        if item.type == onnx.AttributeProto.GRAPH:
            yield item.g
        yield from item.graphs


def uses(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the tensors that a node takes, those of its subgraphs included."""
    yield from node.input
    for graph in _subgraphs(node):
        yield from (output.name for output in graph.output)
        for inner in graph.node:
            yield from uses(inner)


def _leading_to(nodes: list[onnx.NodeProto], roots: set[str]) -> list[onnx.NodeProto]:
    needed, kept = set(roots), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(uses(node))
    return kept[::-1]
