"""The ONNX form of Keras' activation functions, and of the layers that apply one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from scenetrack.export.steps import Step
from scenetrack.graphs.builder import GraphBuilder


def convert_activation(builder: GraphBuilder, step: Step, tensors: Sequence[str]) -> str | None:
    """Add an Activation layer."""
    return add_activation(builder, step.layer.activation, tensors[0])


def convert_relu(builder: GraphBuilder, step: Step, tensors: Sequence[str]) -> str | None:
    """Add a ReLU layer with a slope below zero or with an upper bound, but not with both."""
    layer = step.layer
    slope, top = float(layer.negative_slope), layer.max_value
    if layer.threshold or (slope and top is not None):
        return None
    if top is not None:
        bounds = (builder.constant("bound", np.array(value, np.float32)) for value in (0.0, top))
        return builder.node("Clip", tensors[0], *bounds)
    if slope:
        return convert_leaky_relu(builder, step, tensors)
    return builder.node("Relu", tensors[0])


def convert_leaky_relu(builder: GraphBuilder, step: Step, tensors: Sequence[str]) -> str:
    """Add a LeakyReLU layer."""
    return builder.node("LeakyRelu", tensors[0], alpha=float(step.layer.negative_slope))


def convert_elu(builder: GraphBuilder, step: Step, tensors: Sequence[str]) -> str:
    """Add an ELU layer."""
    return builder.node("Elu", tensors[0], alpha=float(step.layer.alpha))


def convert_softmax(builder: GraphBuilder, step: Step, tensors: Sequence[str]) -> str | None:
    """Add a Softmax layer over one axis, without a mask."""
    if not isinstance(step.layer.axis, int) or len(tensors) > 1:
        return None
    return builder.node("Softmax", tensors[0], axis=step.layer.axis)


def add_activation(builder: GraphBuilder, function: Any, tensor: str) -> str | None:
    """Add Keras' activation ``function`` of ``tensor``; return None where it has no ONNX form.

    A function of another module has none, whatever its name. ``partial(gelu, approximate=True)``
    is the one way to ask Keras for gelu's tanh form: "gelu" as a string is exact.
    """
    import keras

    if isinstance(function, partial) and function.func is keras.activations.gelu:
        if function.args or set(function.keywords) != {"approximate"}:
            return None
        return _gelu(builder, tensor, **function.keywords)
    name = getattr(function, "__name__", "")
    if name not in _ACTIVATIONS or getattr(keras.activations, name) is not function:
        return None
    return _ACTIVATIONS[name](builder, tensor)


def _silu(builder: GraphBuilder, tensor: str) -> str:
    return builder.node("Mul", tensor, builder.node("Sigmoid", tensor))


def _gelu(builder: GraphBuilder, tensor: str, approximate: bool = False) -> str:
    return builder.node("Gelu", tensor, approximate="tanh" if approximate else "none")


def _operator(op_type: str, **attrs: Any) -> Callable[[GraphBuilder, str], str]:
    return lambda builder, tensor: builder.node(op_type, tensor, **attrs)


_ACTIVATIONS: Mapping[str, Callable[[GraphBuilder, str], str]] = {
    "linear": lambda builder, tensor: tensor,
    "relu": _operator("Relu"),
    "gelu": _gelu,
    "silu": _silu,
    # The function's slope; the layer LeakyReLU has another default, 0.3.
    "leaky_relu": _operator("LeakyRelu", alpha=0.2),
    "elu": _operator("Elu", alpha=1.0),
    "tanh": _operator("Tanh"),
    "sigmoid": _operator("Sigmoid"),
    "softmax": _operator("Softmax", axis=-1),
}
