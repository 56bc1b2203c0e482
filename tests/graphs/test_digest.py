"""The digest of a model depends on what it computes, not on metadata about its origin."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from scenetrack.errors import ModelError
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.graphs.digest import model_digest


def small_model(weight: float = 2.0) -> onnx.ModelProto:
    """images float32 [N, 3] times a weight, doubled in one branch of an If."""
    builder = GraphBuilder("small")
    images = builder.input("images", np.float32, ["N", 3])
    scaled = builder.node("Mul", images, builder.constant("weight", np.float32(weight)))
    yes = builder.constant("yes", np.array(True))
    chosen = builder.choose(
        yes, lambda one: one.node("Add", scaled, scaled), lambda one: one.node("Neg", scaled)
    )
    builder.output("values", chosen, np.float32, ["N", 3])
    return builder.build({"source_run": "a"})


def branch(model: onnx.ModelProto) -> onnx.GraphProto:
    (choice,) = (node for node in model.graph.node if node.op_type == "If")
    return choice.attribute[0].g


SAY_NOTHING: dict[str, Callable[[onnx.ModelProto], object]] = {
    "run": lambda model: onnx.helper.set_model_props(model, {"source_run": "b", "seed": "7"}),
    "producer": lambda model: model.ParseFromString(
        model.SerializeToString() + onnx.ModelProto(producer_version="9").SerializeToString()
    ),
    "documentation": lambda model: setattr(model, "doc_string", "text"),
    "documentation of a node": lambda model: setattr(model.graph.node[0], "doc_string", "text"),
    "documentation of a branch": lambda model: setattr(branch(model).node[0], "doc_string", "x"),
    "metadata of the graph": lambda model: model.graph.metadata_props.add(key="a", value="b"),
}
COUNT: dict[str, Callable[[onnx.ModelProto], object]] = {
    "weight": lambda model: model.CopyFrom(small_model(3.0)),
    "operator": lambda model: setattr(model.graph.node[0], "op_type", "Add"),
    "operator of a branch": lambda model: setattr(branch(model).node[0], "op_type", "Mul"),
    "input": lambda model: setattr(model.graph.input[0], "name", "pixels"),
    "opset": lambda model: setattr(model.opset_import[0], "version", 20),
}


@pytest.mark.parametrize("change", SAY_NOTHING.values(), ids=SAY_NOTHING)
def test_same_whoever_made_it(change: Callable[[onnx.ModelProto], object]) -> None:
    model = small_model()
    before = model.SerializeToString()
    change(model)
    assert model.SerializeToString() != before
    assert model_digest(model) == model_digest(small_model())


@pytest.mark.parametrize("change", COUNT.values(), ids=COUNT)
def test_other_where_it_computes_something_else(
    change: Callable[[onnx.ModelProto], object],
) -> None:
    model = small_model()
    change(model)
    assert model_digest(model) != model_digest(small_model())


def test_bytes_and_model_agree_and_the_model_stays_as_it_is() -> None:
    model = small_model()
    content = model.SerializeToString()
    assert model_digest(content) == model_digest(model)
    assert model.SerializeToString() == content
    assert model.metadata_props


def test_is_the_sha256_of_a_model_without_words() -> None:
    plain = small_model()
    for name in ("metadata_props", "producer_name", "producer_version"):
        plain.ClearField(name)
    expected = hashlib.sha256(plain.SerializeToString(deterministic=True)).hexdigest()
    assert model_digest(small_model()) == expected


def test_weights_outside_are_refused() -> None:
    model = small_model()
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    with pytest.raises(ModelError, match="'weight' is kept in another file"):
        model_digest(model)
