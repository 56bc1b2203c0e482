"""ONNX graph of a Keras network, built layer by layer without Keras' own exporter.

As long as values are a linear (or contrast-normalised) function of the pixels they stay symbolic.
The first layer that mixes pixels becomes one product with the pixels themselves, in the way of
the pixel source (see ``pixels``).
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from scenetrack.export.layers import (
    add_activation,
    class_name,
    convert,
    convert_dense,
    dense_weights,
    is_identity,
    is_last_axis_norm,
    is_plain_dense,
)
from scenetrack.export.pixels import PixelSource
from scenetrack.export.steps import Step, is_network, steps_to, uses
from scenetrack.graphs.builder import GraphBuilder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pixels:
    """A symbolic function of the pixels p of each patch, ``scale * p + shift``.

    With ``contrast`` they are (p - mean) / (standard deviation + contrast) instead. ``scale`` and
    ``shift`` are float64 [C], by channel; ``flat`` is whether the shape is
    [B, h * w * C] instead of [B, h, w, C].
    """

    scale: np.ndarray
    shift: np.ndarray
    contrast: float = 0.0
    flat: bool = False

    @property
    def untouched(self) -> bool:
        return not self.contrast and bool((self.scale == 1).all() and (self.shift == 0).all())


def build_graph(
    source: PixelSource, model: Any, tensors: Mapping[str, Any], metadata: Mapping[str, str]
) -> onnx.ModelProto | None:
    """Return the checked graph of symbolic ``tensors`` by output name.

    None where a layer has no ONNX form.
    """
    rows = convert_network(source, model, tensors.values())
    if rows is None:
        return None
    for (name, tensor), row in zip(tensors.items(), rows, strict=True):
        restored, shape = source.restore(row, tuple(tensor.shape[1:]))
        source.builder.output(name, restored, np.float32, shape)
    return source.builder.build(metadata)


def convert_network(source: PixelSource, model: Any, tensors: Iterable[Any]) -> list[str] | None:
    """Add the layers up to each of ``tensors`` to the source's graph.

    Args:
        source: gives the pixels that the network takes.
        model: a Keras model with one input.
        tensors: symbolic outputs of its layers.

    Returns:
        Names of float32 tensors [B, ...]; None where a layer has no ONNX form.
    """
    kept = list(tensors)
    channels = source.shape[-1]
    pixels = Pixels(np.ones(channels), np.zeros(channels))
    conversion = _Conversion(source, {id(model.inputs[0]): pixels})
    if not conversion.add(steps_to(kept), kept):
        return None
    names = [conversion.materialised(conversion.values[id(tensor)]) for tensor in kept]
    return None if None in names else [name for name in names if name is not None]


@dataclass
class _Conversion:
    """Adds layers to a graph; ``values`` maps the id of each symbolic tensor to its value."""

    source: PixelSource
    values: dict[int, str | Pixels]

    @property
    def builder(self) -> GraphBuilder:
        return self.source.builder

    def add(self, steps: Sequence[Step], kept: Iterable[Any]) -> bool:
        norms = _foldable_norms(steps, kept)
        folded = {id(norm.output) for norm in norms.values()}
        for step in steps:
            norm = norms.get(id(step.output))
            inputs = [self.values[id(tensor)] for tensor in step.inputs]
            result = inputs[0]
            if id(step.output) not in folded:
                converted = self._convert(step, inputs, norm.layer if norm else None)
                if converted is None:
                    logger.info("layer %s has no ONNX form in this package", step.layer.name)
                    return False
                result = converted
            self.values[id(step.output)] = result
        return True

    def _convert(self, step: Step, inputs: list[str | Pixels], norm: Any) -> str | Pixels | None:
        if isinstance(inputs[0], Pixels) and len(inputs) == 1:
            with self.builder.scope(step.layer.name):
                result = self._from_pixels(step, inputs[0], norm)
            if result is not None:
                return result
        names = [self.materialised(value) for value in inputs]
        given = [name for name in names if name is not None]
        if len(given) < len(names):
            return None
        if norm is not None:
            with self.builder.scope(step.layer.name):
                return convert_dense(self.builder, step, given, norm)
        if is_network(step.layer):
            return self._convert_inner(step.layer, given)
        return convert(self.builder, step, given)

    def _convert_inner(self, network: Any, inputs: Sequence[str]) -> str | None:
        """Add a network used as a layer.

        None where it has several outputs, or a layer without an ONNX form.
        """
        if len(network.outputs) != 1 or len(network.inputs) != len(inputs):
            return None
        pairs = zip(network.inputs, inputs, strict=True)
        inner = _Conversion(self.source, {id(tensor): name for tensor, name in pairs})
        with self.builder.scope(network.name):
            if not inner.add(steps_to(network.outputs), network.outputs):
                return None
        return inner.materialised(inner.values[id(network.outputs[0])])

    def _from_pixels(self, step: Step, pixels: Pixels, norm: Any) -> str | Pixels | None:
        """Return the layer's output for symbolic pixels; None where it needs computed pixels."""
        layer = step.layer
        if is_identity(layer):
            return pixels
        match class_name(layer):
            case "ContrastNormalization" if _is_raw(pixels):
                return dataclasses.replace(pixels, contrast=layer.offset)
            case "Whitening" if pixels.flat:
                projection = np.asarray(layer.projection, np.float64)
                return self._product(
                    pixels, projection, -np.asarray(layer.center, np.float64) @ projection
                )
            case "Rescaling":
                return _rescaled(pixels, layer)
            case "Flatten" if layer.data_format == "channels_last":
                return dataclasses.replace(pixels, flat=True)
            case "GlobalAveragePooling2D" if layer.data_format == "channels_last":
                return self._mean_colour(pixels, layer)
            case "Dense" if pixels.flat:
                return self._dense(pixels, layer, norm)
        return None

    def _dense(self, pixels: Pixels, layer: Any, norm: Any) -> str | None:
        weights = dense_weights(layer, norm)
        if weights is None:
            return None
        return add_activation(self.builder, layer.activation, self._product(pixels, *weights))

    def _product(self, pixels: Pixels, kernel: np.ndarray, bias: np.ndarray) -> str:
        """Add rows [B, D]: the pixels' values times ``kernel`` [h w C, D], plus ``bias`` [D]."""
        builder, shape = self.builder, self.source.shape
        if pixels.contrast:
            # Subtracting the mean of the patch equals subtracting the mean of each kernel column.
            centred = kernel - kernel.mean(axis=0)
            rows = self.source.project(centred.reshape(*shape, -1))
            rows = builder.node("Div", rows, self._spread(pixels.contrast))
        else:
            scale, shift = (
                np.tile(value, shape[0] * shape[1]) for value in (pixels.scale, pixels.shift)
            )
            bias = bias + shift @ kernel
            scaled = (kernel * scale[:, None]).reshape(*shape, -1)
            rows = self.source.project(scaled)
        return builder.node("Add", rows, builder.constant("bias", bias.astype(np.float32)))

    def _mean_colour(self, pixels: Pixels, layer: Any) -> str | None:
        if pixels.contrast or pixels.flat or layer.keepdims:
            return None
        builder, (height, width, channels) = self.builder, self.source.shape
        ends = (self.source.constant(name, at) for name, at in (("from", 0), ("to", channels)))
        sums = builder.node("Slice", self.source.sums(), *ends, self.source.constant("axis", 1))
        scale = builder.constant("scale", pixels.scale / (height * width))
        means = builder.node("Mul", sums, scale)
        means = builder.node("Add", means, builder.constant("shift", pixels.shift))
        return builder.node("Cast", means, to=TensorProto.FLOAT)

    def _spread(self, offset: float) -> str:
        """Add the standard deviation of each patch's values plus ``offset``: float32 [B, 1]."""
        builder, shape = self.builder, self.source.shape
        axis, lengths = self.source.constant("axis", 1), self.source.constant("parts", shape[-1], 1)
        parts = builder.node(
            "Split",
            self.source.sums(),
            lengths,
            outputs=2,
            axis=1,
        )
        size = builder.constant("count", np.array(float(math.prod(shape))))
        mean = builder.node("Div", builder.node("ReduceSum", parts[0], axis), size)
        power = builder.node("Div", parts[1], size)
        variance = builder.node("Sub", power, builder.node("Mul", mean, mean))
        # Rounding may make the variance of a flat patch negative.
        nothing = builder.constant("nothing", np.array(0.0))
        spread = builder.node("Sqrt", builder.node("Max", variance, nothing))
        spread = builder.node("Add", spread, builder.constant("offset", np.array(float(offset))))
        return builder.node("Cast", spread, to=TensorProto.FLOAT)

    def materialised(self, value: str | Pixels) -> str | None:
        """Return the value as a float32 tensor; None where the source never makes patches."""
        if isinstance(value, str):
            return value
        patches = self.source.patches()
        if patches is None:
            return None
        result = self.source.to_float(patches)
        builder = self.builder
        if value.contrast:
            axes = self.source.constant("axes", 1, 2, 3)
            centred = builder.node("Sub", result, builder.node("ReduceMean", result, axes))
            spread = builder.node(
                "Reshape", self._spread(value.contrast), self.source.constant("ones", -1, 1, 1, 1)
            )
            result = builder.node("Div", centred, spread)
        elif not value.untouched:
            scale, shift = (v.astype(np.float32) for v in (value.scale, value.shift))
            result = builder.node("Mul", result, builder.constant("scale", scale))
            result = builder.node("Add", result, builder.constant("shift", shift))
        return builder.node("Flatten", result, axis=1) if value.flat else result


def _is_raw(pixels: Pixels) -> bool:
    return pixels.untouched and not pixels.flat


def _rescaled(pixels: Pixels, layer: Any) -> Pixels | None:
    scale, offset = (np.asarray(value, np.float64) for value in (layer.scale, layer.offset))
    shapes = [()] if pixels.flat else [(), (1,), pixels.scale.shape]
    if pixels.contrast or scale.shape not in shapes or offset.shape not in shapes:
        return None
    return dataclasses.replace(
        pixels, scale=pixels.scale * scale, shift=pixels.shift * scale + offset
    )


def _foldable_norms(steps: Sequence[Step], kept: Iterable[Any]) -> dict[int, Step]:
    """Return batch normalisations by the id of the Dense output that only they take."""
    counts = uses(steps, kept)
    alone = {
        id(step.output)
        for step in steps
        if is_plain_dense(step.layer) and counts.get(id(step.output)) == 1
    }
    return {
        id(step.inputs[0]): step
        for step in steps
        if id(step.inputs[0]) in alone and is_last_axis_norm(step.layer, step.rank)
    }
