"""GraphBuilder: constructs ONNX graphs of opset 21 node by node and runs the ONNX checker."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Self, TypeAlias, overload

import numpy as np
import onnx
from numpy.typing import DTypeLike
from onnx import TensorProto, helper, numpy_helper

from scenetrack import __version__
from scenetrack.errors import ExportError

# onnxruntime-gpu 1.26, the last release for CUDA 12, refuses onnx's own defaults (opset 28, IR 14
# in onnx 1.23); every supported release of ONNX Runtime reads these two.
OPSET = 21
IR_VERSION = 10
PRODUCER = "scenetrack"
# Smaller constants are shapes and axes, which shape inference must find as initializers.
_SHARED_BYTES = 4096

Shape: TypeAlias = Sequence[int | str | None]


class GraphBuilder:
    """Typed layer over ``onnx.helper``: add nodes in the order of execution, then ``build``.

    Tensors are identified by their names. Names of nodes and constants are made unique by a
    number; names of inputs and outputs are kept as given, since they are the graph's interface.

    Args:
        name: name of the graph.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._prefix = ""
        self._taken: set[str] = set()
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[TensorProto] = []
        self._included: dict[str, str] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, dtype: DTypeLike, shape: Shape) -> str:
        """Declare a graph input and return its name.

        Args:
            shape: length of each axis: an int if it is fixed, and a symbolic name or None if any
                length is accepted.

        Raises:
            ExportError: the name is already taken in this graph.
        """
        self._inputs.append(_value_info(self._claim(name), dtype, shape))
        return name

    def constant(self, name: str, array: np.ndarray) -> str:
        """Store ``array`` in the graph, with its dtype, and return its unique name."""
        unique = self._unique(name)
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array), unique))
        return unique

    @overload
    def node(
        self, op_type: str, *inputs: str, name: str = ..., outputs: Literal[1] = 1, **attrs: Any
    ) -> str: ...

    @overload
    def node(
        self, op_type: str, *inputs: str, name: str = ..., outputs: int, **attrs: Any
    ) -> tuple[str, ...]: ...

    def node(
        self, op_type: str, *inputs: str, name: str = "", outputs: int = 1, **attrs: Any
    ) -> str | tuple[str, ...]:
        """Add an operator of opset 21 and return its output, or a tuple if it has several.

        Args:
            inputs: tensor names in the operator's order; "" omits an optional input.
            name: name of the node and its output; if empty, the operator's name.
            outputs: number of the node's outputs.
            attrs: attributes of the operator.
        """
        unique = self._unique(name or op_type)
        results = (unique, *(self._unique(f"{unique}:{index}") for index in range(1, outputs)))
        self._nodes.append(
            helper.make_node(op_type, list(inputs), list(results), name=unique, **attrs)
        )
        return unique if outputs == 1 else results

    def output(self, name: str, tensor: str, dtype: DTypeLike, shape: Shape) -> str:
        """Declare ``tensor`` as the graph output ``name`` and return that name.

        Raises:
            ExportError: the name is already taken in this graph.
        """
        self._nodes.append(helper.make_node("Identity", [tensor], [self._claim(name)], name=name))
        self._outputs.append(_value_info(name, dtype, shape))
        return name

    @contextmanager
    def scope(self, prefix: str) -> Iterator[None]:
        """Prefix the names of nodes and constants added inside the block with ``prefix/``."""
        outer = self._prefix
        self._prefix = f"{outer}{prefix}/"
        try:
            yield
        finally:
            self._prefix = outer

    def choose(
        self, condition: str, then: Callable[[Self], str], otherwise: Callable[[Self], str]
    ) -> str:
        """Add an If node and return its output; only the chosen branch is computed.

        Args:
            condition: tensor of a single bool.
            then: function that adds the nodes of the true branch to the builder it is given and
                returns the result; it may also use tensors of this graph.
            otherwise: likewise for the false branch.
        """
        branches = {}
        for key, part in (("then_branch", then), ("else_branch", otherwise)):
            branch = self._inner()
            result = branch.node("Identity", part(branch), name=key)
            branches[key] = branch._graph(key, [helper.make_empty_tensor_value_info(result)])
        return self.node("If", condition, **branches)

    def each(
        self,
        tensors: Sequence[str],
        body: Callable[..., Sequence[str]],
        dtypes: Sequence[DTypeLike],
    ) -> tuple[str, ...]:
        """Add a Scan node: apply ``body`` to each entry of the first axis and stack the results.

        Entries are processed one after the other, so memory holds the intermediates of one entry.

        Args:
            tensors: tensors to iterate over; their first axes have the same length.
            body: function that adds the nodes for one entry to the builder it is given first and
                returns the results; it may also use tensors of this graph.
            dtypes: dtypes of ``tensors``.
        """
        inner = self._inner()
        entries = [inner._unique("each/entry") for _ in tensors]
        inputs = [
            helper.make_tensor_value_info(name, _element_type(dtype), None)
            for name, dtype in zip(entries, dtypes, strict=True)
        ]
        results = [
            inner.node("Identity", name, name="each/result") for name in body(inner, *entries)
        ]
        outputs = [helper.make_empty_tensor_value_info(name) for name in results]
        graph = inner._graph("body", outputs, inputs)
        count = len(results)
        stacked = self.node(
            "Scan", *tensors, outputs=count, body=graph, num_scan_inputs=len(tensors)
        )
        return (stacked,) if isinstance(stacked, str) else stacked

    def include(self, model: onnx.ModelProto, inputs: Mapping[str, str]) -> dict[str, str]:
        """Add the graph of another model, with prefixed names, and return its outputs.

        Args:
            model: model of opset 21; it is not changed.
            inputs: tensors of this graph by the model's input names.

        Returns:
            Tensors of this graph by the model's output names.

        Raises:
            ExportError: the model has another opset, operators of another domain, or functions.
        """
        opsets = {(item.domain, item.version) for item in model.opset_import}
        if opsets != {("", OPSET)} or model.functions:
            raise ExportError(
                f"a graph of opset {OPSET} without functions is required to be joined to another. "
                f"Received: {sorted(opsets)}; export it again"
            )
        prefix = self._unique(model.graph.name or "graph") + "/"
        graph = onnx.GraphProto()
        graph.CopyFrom(model.graph)
        _prefix_names(graph, prefix)
        for name, tensor in inputs.items():
            self._nodes.append(
                helper.make_node("Identity", [tensor], [prefix + name], name=prefix + name)
            )
        for constant in graph.initializer:
            self._include_constant(constant)
        self._nodes.extend(graph.node)
        return {item.name: prefix + item.name for item in model.graph.output}

    def _include_constant(self, constant: TensorProto) -> None:
        """Store a constant of an included model; a large one is stored only once."""
        if constant.ByteSize() >= _SHARED_BYTES:
            nameless = TensorProto()
            nameless.CopyFrom(constant)
            nameless.ClearField("name")
            content = hashlib.sha256(nameless.SerializeToString()).hexdigest()
            stored = self._included.setdefault(content, constant.name)
            if stored != constant.name:
                name = constant.name
                self._nodes.append(helper.make_node("Identity", [stored], [name], name=name))
                return
        self._constants.append(constant)

    def build(self, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """Return the checked model: opset 21, IR 10, with ``metadata`` as its metadata properties.

        Raises:
            ExportError: the checker or shape inference rejects the graph, for instance because no
                node computes a tensor or a declared output shape is wrong.
        """
        graph = helper.make_graph(
            self._nodes, self.name, self._inputs, self._outputs, self._constants
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name=PRODUCER,
            producer_version=__version__,
        )
        helper.set_model_props(model, dict(metadata))
        check_model(model)
        return model

    def _inner(self) -> Self:
        """Return a builder for a subgraph, whose constants are stored in this graph."""
        inner = type(self)(self.name)
        inner._prefix, inner._taken, inner._constants = self._prefix, self._taken, self._constants
        inner._included = self._included
        return inner

    def _graph(
        self,
        name: str,
        outputs: Sequence[onnx.ValueInfoProto],
        inputs: Sequence[onnx.ValueInfoProto] = (),
    ) -> onnx.GraphProto:
        return helper.make_graph(self._nodes, f"{self._prefix}{name}", list(inputs), list(outputs))

    def _claim(self, name: str) -> str:
        if name in self._taken:
            raise ExportError(
                f"names of inputs and outputs must be unique in graph {self.name!r}, but "
                f"{name!r} is taken: choose another one"
            )
        self._taken.add(name)
        return name

    def _unique(self, name: str) -> str:
        base = unique = self._prefix + name
        count = 1
        while unique in self._taken:
            unique = f"{base}_{count}"
            count += 1
        return self._claim(unique)


def check_model(model: onnx.ModelProto) -> None:
    """Raise a one-line ExportError unless ``model`` is valid ONNX with consistent shapes."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ExportError(
            f"a valid ONNX graph is required, but the checker refuses {model.graph.name!r}: "
            f"{reason[:300]}"
        ) from error


def _value_info(name: str, dtype: DTypeLike, shape: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _element_type(dtype), list(shape))


def _element_type(dtype: DTypeLike) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _prefix_names(graph: onnx.GraphProto, prefix: str) -> None:
    """Prefix the names of all nodes and tensors of ``graph`` and of its subgraphs.

    ``onnx.compose`` does not rename the outer tensors that a subgraph uses.
    """
    for item in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        item.name = prefix + item.name
    for node in graph.node:
        node.name = prefix + node.name
        for names in (node.input, node.output):
            names[:] = [prefix + name if name else "" for name in names]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _prefix_names(inner, prefix)
