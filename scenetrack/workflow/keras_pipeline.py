"""A Keras network of whole images as a pipeline: exported, with logits as its output."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from scenetrack.delivery.pipeline import ScenePipeline
from scenetrack.errors import ModelError
from scenetrack.export.truncate import export_truncated
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.graphs.files import read_model

if TYPE_CHECKING:
    import keras

_LOGITS = "logits"
# The smallest normal float32: the logarithm of a probability of 0 stays finite.
_TINY = float(np.finfo(np.float32).tiny)


def keras_pipeline(
    network: keras.Model,
    classes: Sequence[str],
    images: np.ndarray | None = None,
    *,
    temperature: float = 1.0,
    device: str = "cpu",
) -> ScenePipeline:
    """Export ``network`` and return it as a pipeline.

    Args:
        network: uint8 [N, S, S, 3] to one score or probability for each class.
        classes: names, in the order of the outputs.
        images: real images uint8 [M, S, S, 3] to verify the export on; None: random ones.
        temperature: what scores are divided by before they become probabilities.
        device: where the graph runs.

    Raises:
        ModelError: the network gives neither probabilities nor scores.
        ExportError: it cannot be exported.
    """
    return ScenePipeline(
        network=classifier_graph(network, images),
        classes=tuple(classes),
        image_size=network.input_shape[1],
        temperature=temperature,
        device=device,
    )


def classifier_graph(network: keras.Model, images: np.ndarray | None) -> onnx.ModelProto:
    """Return the network with the output ``logits``.

    A network that was made elsewhere and ends in a softmax gives the logarithm of its
    probabilities, whose softmax they are again.

    Raises:
        ModelError: the last layer gives neither probabilities nor scores.
    """
    layer = network.layers[-1]
    # In a network that was made elsewhere a layer of this name may be anything.
    own = [last.name for last in network.layers[-2:]] == [_LOGITS, "probabilities"]
    shares = not own and _gives_shares(network)
    if not own and not shares and not _is_linear(layer):
        raise ModelError(
            f"a network that ends in a softmax, or without activation, is required, but the values "
            f"of the last layer {layer.name} of {network.name} are neither probabilities nor "
            "scores: end it in one of these"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        outputs = {_LOGITS: _LOGITS if own else layer.name}
        export_truncated(network, outputs, path, metadata={}, real_images=images)
        model = read_model(path)
    return _with_logarithm(model) if shares else model


def _gives_shares(network: keras.Model) -> bool:
    """Return whether the outputs for random images are probabilities."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, *network.input_shape[1:])).astype(np.uint8)
    shares = network.predict(images, verbose=0)
    return bool((shares >= 0).all() and np.abs(shares.sum(axis=1) - 1).max() < 1e-3)


def _is_linear(layer: Any) -> bool:
    import keras

    return getattr(layer, "activation", None) is keras.activations.linear


def _with_logarithm(model: onnx.ModelProto) -> onnx.ModelProto:
    """Add an output ``logits`` whose softmax gives the old one, its probabilities."""
    builder = GraphBuilder(model.graph.name)
    shapes = [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (model.graph.input[0], model.graph.output[0])
    ]
    images = builder.input("images", np.uint8, shapes[0])
    shares = builder.include(model, {model.graph.input[0].name: images})[_LOGITS]
    kept = builder.node("Max", shares, builder.constant("tiny", np.array(_TINY, np.float32)))
    builder.output(_LOGITS, builder.node("Log", kept), np.float32, shapes[1])
    return builder.build({})
