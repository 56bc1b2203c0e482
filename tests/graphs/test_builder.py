"""GraphBuilder: names, versions, metadata, subgraphs and graphs that the checker rejects."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

import scenetrack
from scenetrack.errors import ExportError
from scenetrack.graphs.builder import GraphBuilder


def affine_graph() -> GraphBuilder:
    builder = GraphBuilder("affine")
    values = builder.input("values", np.float32, ["batch", 2])
    weight = builder.constant("weight", np.array([[1, 2], [3, 4]], np.float32))
    product = builder.node("MatMul", values, weight)
    shift = builder.constant("shift", np.array([10, 20], np.float32))
    builder.output("result", builder.node("Add", product, shift), np.float32, ["batch", 2])
    return builder


def test_graph_computes_what_was_written() -> None:
    evaluator = ReferenceEvaluator(affine_graph().build({}))
    (result,) = evaluator.run(None, {"values": np.array([[1, 1], [0, 2]], np.float32)})
    np.testing.assert_array_equal(result, [[14, 26], [16, 28]])


def test_versions_producer_and_metadata_are_fixed() -> None:
    model = affine_graph().build({"layer": "hidden_2", "classes": "coast,forest"})
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 21)]
    assert model.ir_version == 10
    assert (model.producer_name, model.producer_version) == ("scenetrack", scenetrack.__version__)
    properties = {item.key: item.value for item in model.metadata_props}
    assert properties == {"layer": "hidden_2", "classes": "coast,forest"}


def test_metadata_survives_serialisation() -> None:
    stored = onnx.load_from_string(affine_graph().build({"key": "ü"}).SerializeToString())
    assert {item.key: item.value for item in stored.metadata_props} == {"key": "ü"}


def test_repeated_names_get_numbers() -> None:
    builder = GraphBuilder("names")
    tensor = builder.input("x", np.float32, [1])
    names = [builder.node("Relu", tensor) for _ in range(3)]
    constants = [builder.constant("c", np.zeros(1, np.float32)) for _ in range(2)]
    assert names == ["Relu", "Relu_1", "Relu_2"]
    assert constants == ["c", "c_1"]


def test_scopes_nest_and_end() -> None:
    builder = GraphBuilder("scopes")
    tensor = builder.input("x", np.float32, [1])
    with builder.scope("outer"), builder.scope("inner"):
        assert builder.node("Relu", tensor) == "outer/inner/Relu"
    assert builder.node("Relu", tensor, name="last") == "last"


def test_node_with_several_outputs_returns_them_all() -> None:
    builder = GraphBuilder("top")
    values = builder.input("values", np.float32, [None, 4])
    best, where = builder.node(
        "TopK", values, builder.constant("k", np.array([1], np.int64)), outputs=2, axis=1
    )
    builder.output("best", best, np.float32, [None, 1])
    builder.output("where", where, np.int64, [None, 1])
    evaluator = ReferenceEvaluator(builder.build({}))
    values_and_indices = evaluator.run(None, {"values": np.array([[1, 9, 3, 4]], np.float32)})
    for output, expected in zip(values_and_indices, ([[9.0]], [[1]]), strict=True):
        np.testing.assert_array_equal(np.asarray(output), expected)


def test_constant_keeps_values_and_dtype_of_a_strided_array() -> None:
    array = np.arange(12, dtype=np.int64).reshape(3, 4).T[::2]
    builder = GraphBuilder("constant")
    builder.output("out", builder.constant("c", array), np.int64, [2, 3])
    (stored,) = builder.build({}).graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(stored), array)
    assert numpy_helper.to_array(stored).dtype == np.int64


def test_taken_output_name_is_refused() -> None:
    builder = GraphBuilder("clash")
    tensor = builder.input("x", np.float32, [1])
    with pytest.raises(ExportError, match=r"unique in graph 'clash', but 'x' is taken"):
        builder.output("x", tensor, np.float32, [1])


def test_undefined_tensor_is_refused_in_one_line() -> None:
    builder = GraphBuilder("broken")
    builder.output("out", builder.node("Relu", "nowhere"), np.float32, [1])
    with pytest.raises(ExportError, match=r"checker refuses 'broken'.*nowhere") as caught:
        builder.build({})
    assert "\n" not in str(caught.value)


def test_impossible_output_shape_is_refused() -> None:
    builder = GraphBuilder("shapes")
    tensor = builder.input("x", np.float32, [2, 3])
    builder.output("out", builder.node("Relu", tensor), np.float32, [2, 4])
    with pytest.raises(ExportError, match="checker refuses 'shapes'"):
        builder.build({})


def test_unknown_operator_is_refused() -> None:
    builder = GraphBuilder("operator")
    tensor = builder.input("x", np.float32, [2])
    builder.output("out", builder.node("Relou", tensor), np.float32, [2])
    with pytest.raises(ExportError, match="Relou"):
        builder.build({})


class TestGraphsWithin:
    """If, Scan and whole models inside a graph, computed by ONNX's own evaluator."""

    def evaluated(self, builder: GraphBuilder, **inputs: np.ndarray) -> list[np.ndarray]:
        found = ReferenceEvaluator(builder.build({})).run(None, inputs)
        return [np.asarray(values) for values in found]

    @pytest.mark.parametrize(("value", "expected"), [(6, -6), (4, 8)])
    def test_one_of_two_parts_is_chosen(self, value: float, expected: float) -> None:
        builder = GraphBuilder("choice")
        tensor = builder.input("x", np.float32, [])
        two = builder.constant("two", np.float32(2))
        large = builder.node("Greater", tensor, builder.constant("five", np.float32(5)))
        chosen = builder.choose(
            large,
            lambda inner: inner.node("Neg", tensor),
            lambda inner: inner.node("Mul", tensor, two),
        )
        builder.output("y", chosen, np.float32, [])
        assert self.evaluated(builder, x=np.float32(value)) == [expected]

    def test_each_entry_of_several_tensors(self) -> None:
        builder = GraphBuilder("each")
        rows = builder.input("rows", np.float32, [None, 3])
        factors = builder.input("factors", np.float32, [None])
        shift = builder.constant("shift", np.float32(1))

        def body(inner: GraphBuilder, row: str, factor: str) -> list[str]:
            scaled = inner.node("Mul", row, factor)
            total = inner.node("ReduceSum", scaled, keepdims=0)
            return [inner.node("Add", scaled, shift), total, row]

        kinds = [np.float32, np.float32]
        shifted, totals, same = builder.each([rows, factors], body, kinds)
        builder.output("shifted", shifted, np.float32, [None, 3])
        builder.output("totals", totals, np.float32, [None])
        builder.output("same", same, np.float32, [None, 3])
        given = np.arange(6, dtype=np.float32).reshape(2, 3)
        found = self.evaluated(builder, rows=given, factors=np.array([1, 10], np.float32))
        np.testing.assert_array_equal(found[0], [[1, 2, 3], [31, 41, 51]])
        np.testing.assert_array_equal(found[1], [3, 120])
        np.testing.assert_array_equal(found[2], given)

    def test_graphs_nest(self) -> None:
        """A choice within each row, of what stands outside both."""
        builder = GraphBuilder("nested")
        rows = builder.input("rows", np.float32, [None, 2])
        limit = builder.input("limit", np.float32, [])

        def body(inner: GraphBuilder, row: str) -> list[str]:
            total = inner.node("ReduceSum", row, keepdims=0)
            above = inner.node("Greater", total, limit)
            return [inner.choose(above, lambda most: limit, lambda most: total)]

        (capped,) = builder.each([rows], body, [np.float32])
        builder.output("capped", capped, np.float32, [None])
        rows_given = np.array([[1, 1], [3, 4]], np.float32)
        (found,) = self.evaluated(builder, rows=rows_given, limit=np.float32(5))
        np.testing.assert_array_equal(found, [2, 5])

    def twice(self) -> onnx.ModelProto:
        """Doubles each row of "values" in a Scan: with an inner graph that takes a constant."""
        builder = GraphBuilder("twice")
        values = builder.input("values", np.float32, ["batch", 2])
        two = builder.constant("two", np.float32(2))
        (doubled,) = builder.each(
            [values], lambda inner, row: [inner.node("Mul", row, two)], [np.float32]
        )
        builder.output("result", doubled, np.float32, ["batch", 2])
        return builder.build({"source": "the included model"})

    def test_a_model_is_included_twice_and_stays_as_it_was(self) -> None:
        model = self.twice()
        before = model.SerializeToString()
        builder = GraphBuilder("outer")
        # The names of the outer graph's tensors are those within the other.
        tensor = builder.input("values", np.float32, ["batch", 2])
        once = builder.include(model, {"values": tensor})["result"]
        again = builder.include(model, {"values": once})["result"]
        builder.output("result", again, np.float32, ["batch", 2])
        (found,) = self.evaluated(builder, values=np.array([[1, 2]], np.float32))
        np.testing.assert_array_equal(found, [[4, 8]])
        assert model.SerializeToString() == before

    def test_a_model_of_another_opset_is_refused(self) -> None:
        older = onnx.version_converter.convert_version(affine_graph().build({}), 18)
        builder = GraphBuilder("outer")
        tensor = builder.input("x", np.float32, ["batch", 2])
        with pytest.raises(ExportError, match=r"opset 21 without functions .* \[\('', 18\)\]"):
            builder.include(older, {"values": tensor})
