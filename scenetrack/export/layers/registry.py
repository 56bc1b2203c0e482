"""Keras layers by class name, each with the function that adds it to an ONNX graph.

A new layer is one function in the module of its kind and one line in ``CONVERTERS``. The
function takes the builder, the call of the layer and the names of its input tensors (float32,
batch first), and returns its output as in inference, or None where the layer's settings have no
ONNX form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from scenetrack.export.layers.activation import (
    convert_activation,
    convert_elu,
    convert_leaky_relu,
    convert_relu,
    convert_softmax,
)
from scenetrack.export.layers.dense import convert_dense
from scenetrack.export.layers.identity import is_identity
from scenetrack.export.layers.merging import convert_add, convert_concatenate
from scenetrack.export.layers.normalisation import (
    convert_batch_norm,
    convert_layer_norm,
    convert_rescaling,
)
from scenetrack.export.layers.pooling import convert_global_average
from scenetrack.export.layers.reshaping import convert_flatten, convert_reshape
from scenetrack.export.steps import Step
from scenetrack.graphs.builder import GraphBuilder

Converter: TypeAlias = Callable[[GraphBuilder, Step, Sequence[str]], str | None]

CONVERTERS: Mapping[str, Converter] = {
    "Dense": convert_dense,
    "BatchNormalization": convert_batch_norm,
    "LayerNormalization": convert_layer_norm,
    "Rescaling": convert_rescaling,
    "Flatten": convert_flatten,
    "Reshape": convert_reshape,
    "GlobalAveragePooling2D": convert_global_average,
    "Concatenate": convert_concatenate,
    "Add": convert_add,
    "Activation": convert_activation,
    "ReLU": convert_relu,
    "LeakyReLU": convert_leaky_relu,
    "ELU": convert_elu,
    "Softmax": convert_softmax,
}


def convert(builder: GraphBuilder, step: Step, tensors: Sequence[str]) -> str | None:
    """Add the layer of ``step`` to the graph and return its output; None if it has no ONNX form.

    A layer with ``to_graph(builder, *tensors) -> str`` adds itself. Keras' layers are known by
    class: a subclass may compute something else and so has no ONNX form.
    """
    import keras

    layer = step.layer
    # Some of Keras' operations have the class name of a layer, but keep their constants elsewhere.
    if not isinstance(layer, keras.layers.Layer):
        return None
    with builder.scope(layer.name):
        if hasattr(layer, "to_graph"):
            result: str = layer.to_graph(builder, *tensors)
            return result
        name = class_name(layer)
        if name and is_identity(layer):
            return tensors[0]
        converter = CONVERTERS.get(name)
        return converter(builder, step, tensors) if converter else None


def class_name(layer: Any) -> str:
    """Return the class name of a layer of Keras or of this package; "" for any other class."""
    kind = type(layer)
    is_known = kind.__module__.startswith(("keras.", "scenetrack.networks.layers"))
    return kind.__name__ if is_known else ""
