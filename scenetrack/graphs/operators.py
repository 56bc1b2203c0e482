"""Operators that a graph may contain: those that end, and that say the same each time.

A graph may run for ever, or say something else each time. So of the operators of ONNX only
those that a graph of scenetrack may contain are allowed: nothing that repeats but a Scan in the
form of ``GraphBuilder.each``, which ends with the rows of its input, no randomness, no sequences
and no texts; no functions, and no operators of ONNX Runtime's own, whose arguments are checked
least.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from onnx import (
    AttributeProto,
    GraphProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    ValueInfoProto,
)

from scenetrack.errors import ModelError
from scenetrack.system.files import printable

ONNX_DOMAINS = ("", "ai.onnx")
# Node that wraps a graph compiled by a driver, in the file or beside it: code, not data.
COMPILED = ("com.microsoft", "EPContext")
# Operators of ONNX that no graph of scenetrack contains, whatever network it was made from.
REFUSED = frozenset(
    {
        *("Loop", "SequenceMap"),  # may run for ever
        *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike"),
        *("RandomUniform", "RandomUniformLike"),
        *("ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty"),
        *("SequenceErase", "SequenceInsert", "SequenceLength", "SplitToSequence"),
        *("Optional", "OptionalGetElement", "OptionalHasElement"),
        *("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer"),
        "ImageDecoder",
    }
)
# Attributes of a Scan that GraphBuilder.each makes.
_SCAN_ATTRIBUTES = frozenset({"body", "num_scan_inputs"})

Part: TypeAlias = GraphProto | NodeProto | AttributeProto
Found: TypeAlias = NodeProto | TensorProto | SparseTensorProto | ValueInfoProto


def check_node(node: NodeProto, name: str) -> None:
    """Raise ModelError unless a graph of scenetrack may contain the node.

    Args:
        node: node of a graph or of a subgraph, whose own nodes are checked by themselves.
        name: name of the model, for the message.
    """
    if (node.domain, node.op_type) == COMPILED:
        raise ModelError(
            f"a graph of ONNX operators is required, but {name} contains one that a device "
            "driver compiled (EPContext), which is code: give the model it was compiled from"
        )
    if node.domain not in ONNX_DOMAINS:
        raise ModelError(
            f"operators of ONNX itself are required, but {name} uses {printable(node.op_type)} of "
            f"{printable(node.domain)}, and libraries of custom operators are never loaded: export "
            "the model without it"
        )
    if node.op_type in REFUSED or not _is_bounded(node):
        raise ModelError(
            f"a graph of operators that scenetrack writes is required, but {name} contains "
            f"{printable(node.op_type)}, which may run for ever or give something else each time: "
            "do not trust this file, or export the model without it"
        )


def _is_bounded(node: NodeProto) -> bool:
    """Return whether the node's subgraphs run at most once for each row of its inputs.

    They are those of an If, and of a Scan without state and without another Scan inside: the rows
    that it runs over lie in memory, while those of one Scan in another would multiply.
    """
    graphs = [graph for item in node.attribute for graph in (*item.graphs, item.g)]
    has_graph = any(item.HasField("g") or item.graphs for item in node.attribute)
    if node.op_type != "Scan":
        return node.op_type == "If" or not has_graph
    counts = [item.i for item in node.attribute if item.name == "num_scan_inputs"]
    return (
        {item.name for item in node.attribute} <= _SCAN_ATTRIBUTES
        and counts == [len(node.input)]
        and not any(
            inner.op_type == "Scan" for inner in walk(graphs) if isinstance(inner, NodeProto)
        )
    )


def walk(roots: Iterable[Part]) -> Iterator[Found]:
    """Yield every node, tensor and shape in the roots and in their subgraphs at any depth."""
    rest = list(roots)
    while rest:
        item = rest.pop()
        if isinstance(item, GraphProto):
            yield from (*item.input, *item.output, *item.value_info)
            yield from item.initializer
            yield from _with_parts(item.sparse_initializer)
            rest.extend(item.node)
        elif isinstance(item, NodeProto):
            yield item
            rest.extend(item.attribute)
        else:
            yield from (item.t, *item.tensors)
            yield from _with_parts((item.sparse_tensor, *item.sparse_tensors))
            rest.extend((item.g, *item.graphs))


def _with_parts(tensors: Iterable[SparseTensorProto]) -> Iterator[Found]:
    for tensor in tensors:
        yield from (tensor, tensor.values, tensor.indices)
