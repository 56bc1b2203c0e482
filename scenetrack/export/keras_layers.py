"""The ONNX twin of each Keras layer that is built by hand: inference only, float32, batch first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from scenetrack.export.steps import Step
from scenetrack.graphs.builder import GraphBuilder

Tensors: TypeAlias = Sequence[str]
Converter: TypeAlias = Callable[[GraphBuilder, Step, Tensors], str | None]


def convert(builder: GraphBuilder, step: Step, tensors: Tensors) -> str | None:
    """Add the twin of ``step`` to the graph and return its output; None where it has none.

    A layer with ``to_graph(builder, *tensors) -> str`` brings its own twin. Keras' layers are
    known by class: a subclass may compute something else and so has none.
    """
    import keras

    layer = step.layer
    # Keras' operations bear some of its layers' class names, and keep their constants elsewhere.
    if not isinstance(layer, keras.layers.Layer):
        return None
    with builder.scope(layer.name):
        if hasattr(layer, "to_graph"):
            own: str = layer.to_graph(builder, *tensors)
            return own
        if not type(layer).__module__.startswith("keras."):
            return None
        if is_identity(layer):
            return tensors[0]
        converter = _CONVERTERS.get(type(layer).__name__)
        return converter(builder, step, tensors) if converter else None


def is_identity(layer: Any) -> bool:
    """Whether ``layer`` is one of Keras' that pass values through when they do not train."""
    import keras

    passing = (
        keras.layers.Identity,
        keras.layers.Dropout,
        keras.layers.SpatialDropout1D,
        keras.layers.SpatialDropout2D,
        keras.layers.GaussianDropout,
        keras.layers.GaussianNoise,
        keras.layers.AlphaDropout,
        keras.layers.ActivityRegularization,
    )
    if isinstance(layer, passing):
        return True
    kind = type(layer)
    return kind.__module__.startswith("keras.") and kind.__name__.startswith("Random")


def is_plain_dense(layer: Any) -> bool:
    """Whether ``layer`` is a Dense without activation, which can take a normalisation in."""
    import keras

    return type(layer) is keras.layers.Dense and layer.activation is keras.activations.linear


def dense_weights(layer: Any, norm: Any | None = None) -> tuple[np.ndarray, np.ndarray] | None:
    """Kernel [D, M] and bias [M] of a Dense layer, with the batch normalisation ``norm`` folded in.

    With s = gamma / sqrt(variance + epsilon): s * (W'x + b - mean) + beta is a Dense layer again,
    with the kernel W * s and the bias s * (b - mean) + beta. None for a quantised layer.
    """
    if getattr(layer, "quantization_mode", None):
        return None
    kernel = np.asarray(layer.kernel, np.float64)
    bias = np.asarray(layer.bias, np.float64) if layer.use_bias else np.zeros(kernel.shape[1])
    if norm is not None:
        scale, shift = batch_norm_scale(norm)
        kernel, bias = kernel * scale, bias * scale + shift
    return kernel, bias


def convert_dense(
    builder: GraphBuilder, layer: Any, tensor: str, norm: Any | None = None
) -> str | None:
    """A Dense layer, with the batch normalisation ``norm`` that follows it folded in."""
    weights = dense_weights(layer, norm)
    if weights is None:
        return None
    kernel, bias = weights
    result = builder.node("MatMul", tensor, _float(builder, "kernel", kernel))
    if bias.any():
        result = builder.node("Add", result, _float(builder, "bias", bias))
    return convert_activation(builder, layer.activation, result)


def is_last_axis_norm(layer: Any, rank: int) -> bool:
    """Whether ``layer`` is a BatchNormalization over the last axis of ``rank`` axes."""
    import keras

    return type(layer) is keras.layers.BatchNormalization and layer.axis in (-1, rank - 1)


def batch_norm_scale(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Inference's scale and shift, float64: y = scale * x + shift."""
    # In float64, so that folding rounds once only.
    scale = 1 / np.sqrt(np.asarray(layer.moving_variance).astype(np.float64) + layer.epsilon)
    if layer.scale:
        scale = scale * np.asarray(layer.gamma)
    shift = -np.asarray(layer.moving_mean) * scale
    return scale, shift + np.asarray(layer.beta) if layer.center else shift


def _dense(builder: GraphBuilder, step: Step, tensors: Tensors) -> str | None:
    return convert_dense(builder, step.layer, tensors[0])


def _batch_norm(builder: GraphBuilder, step: Step, tensors: Tensors) -> str | None:
    if not is_last_axis_norm(step.layer, step.rank):
        return None
    return _affine(builder, tensors[0], *batch_norm_scale(step.layer))


def _layer_norm(builder: GraphBuilder, step: Step, tensors: Tensors) -> str | None:
    layer = step.layer
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    # Newer Keras has no rms_scaling, which is another layer there.
    if axes not in ([-1], [step.rank - 1]) or getattr(layer, "rms_scaling", False):
        return None
    width = step.inputs[0].shape[-1]
    scale = np.asarray(layer.gamma) if layer.scale else np.ones(width)
    shift = np.asarray(layer.beta) if layer.center else np.zeros(width)
    weights = _float(builder, "scale", scale), _float(builder, "shift", shift)
    return builder.node(
        "LayerNormalization", tensors[0], *weights, axis=-1, epsilon=float(layer.epsilon)
    )


def _rescaling(builder: GraphBuilder, step: Step, tensors: Tensors) -> str | None:
    scale, offset = (np.asarray(v, np.float64) for v in (step.layer.scale, step.layer.offset))
    return _affine(builder, tensors[0], scale, offset)


def _affine(builder: GraphBuilder, tensor: str, scale: np.ndarray, shift: np.ndarray) -> str:
    scaled = builder.node("Mul", tensor, _float(builder, "scale", scale))
    return builder.node("Add", scaled, _float(builder, "shift", shift))


def _flatten(builder: GraphBuilder, step: Step, tensors: Tensors) -> str | None:
    if step.layer.data_format != "channels_last":
        return None
    return builder.node("Flatten", tensors[0], axis=1)


def _reshape(builder: GraphBuilder, step: Step, tensors: Tensors) -> str | None:
    # In ONNX a zero keeps the length of the axis: here the batch.
    shape = np.array([0, *step.layer.target_shape], np.int64)
    return builder.node("Reshape", tensors[0], builder.constant("shape", shape))


def _global_average(builder: GraphBuilder, step: Step, tensors: Tensors) -> str | None:
    if step.layer.data_format != "channels_last":
        return None
    axes = builder.constant("axes", np.array([1, 2], np.int64))
    return builder.node("ReduceMean", tensors[0], axes, keepdims=int(step.layer.keepdims))


def _concatenate(builder: GraphBuilder, step: Step, tensors: Tensors) -> str | None:
    return builder.node("Concat", *tensors, axis=step.layer.axis)


def _add(builder: GraphBuilder, step: Step, tensors: Tensors) -> str | None:
    return builder.node("Sum", *tensors)


def _activation(builder: GraphBuilder, step: Step, tensors: Tensors) -> str | None:
    return convert_activation(builder, step.layer.activation, tensors[0])


def _relu_layer(builder: GraphBuilder, step: Step, tensors: Tensors) -> str | None:
    layer = step.layer
    slope, top = float(layer.negative_slope), layer.max_value
    if layer.threshold or (slope and top is not None):
        return None
    if top is not None:
        bounds = (_float(builder, "bound", np.array(value)) for value in (0.0, top))
        return builder.node("Clip", tensors[0], *bounds)
    return _leaky(builder, tensors[0], slope) if slope else builder.node("Relu", tensors[0])


def _leaky_layer(builder: GraphBuilder, step: Step, tensors: Tensors) -> str | None:
    return _leaky(builder, tensors[0], float(step.layer.negative_slope))


def _elu_layer(builder: GraphBuilder, step: Step, tensors: Tensors) -> str | None:
    return builder.node("Elu", tensors[0], alpha=float(step.layer.alpha))


def _softmax_layer(builder: GraphBuilder, step: Step, tensors: Tensors) -> str | None:
    if not isinstance(step.layer.axis, int) or len(tensors) > 1:
        return None
    return builder.node("Softmax", tensors[0], axis=step.layer.axis)


def _leaky(builder: GraphBuilder, tensor: str, slope: float) -> str:
    return builder.node("LeakyRelu", tensor, alpha=slope)


def _silu(builder: GraphBuilder, tensor: str) -> str:
    return builder.node("Mul", tensor, builder.node("Sigmoid", tensor))


def _gelu(builder: GraphBuilder, tensor: str, approximate: bool = False) -> str:
    return builder.node("Gelu", tensor, approximate="tanh" if approximate else "none")


def convert_activation(builder: GraphBuilder, function: Any, tensor: str) -> str | None:
    """The activation ``function`` of Keras on ``tensor``; None where it has no twin.

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


def _operator(op_type: str, **attrs: Any) -> Callable[[GraphBuilder, str], str]:
    return lambda builder, tensor: builder.node(op_type, tensor, **attrs)


def _float(builder: GraphBuilder, name: str, array: np.ndarray) -> str:
    return builder.constant(name, np.asarray(array, np.float32))


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

_CONVERTERS: Mapping[str, Converter] = {
    "Dense": _dense,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "Rescaling": _rescaling,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "GlobalAveragePooling2D": _global_average,
    "Concatenate": _concatenate,
    "Add": _add,
    "Activation": _activation,
    "ReLU": _relu_layer,
    "LeakyReLU": _leaky_layer,
    "ELU": _elu_layer,
    "Softmax": _softmax_layer,
}
