"""A stage's descriptor as a verified ONNX graph, logged and opened."""

from __future__ import annotations

import importlib.metadata
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from scenetrack import __version__
from scenetrack.config import PATCH_NETWORK, CutNetworkConfig, DeviceConfig
from scenetrack.data.patches import PatchGrid
from scenetrack.export.dense import Dense
from scenetrack.export.scales import at_scales
from scenetrack.export.truncate import export_truncated
from scenetrack.graphs.files import read_model
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.records import Metric, Model, Param, Record, Tag, TensorSpec, Tracker, metrics
from scenetrack.workflow.dataset import SceneImages

if TYPE_CHECKING:
    import keras

_VERIFIED_IMAGES = 64


def export_layers(
    network: keras.Model,
    layers: Sequence[str],
    images: SceneImages,
    config: CutNetworkConfig,
    tracker: Tracker,
    dense: Dense | None = None,
    grids: Sequence[PatchGrid] = (),
) -> onnx.ModelProto:
    """Return the network up to ``layers`` as a verified ONNX graph.

    The graph gives ``descriptors``, the layers' outputs joined, and ``logits``, the network's own
    output, so that one pass serves both ways to a class.

    Args:
        images: some of the training images verify the export.
        dense: for a patch network, how to apply it to whole images.
        grids: where the patches lie at each scale, for several scales in one graph.

    Raises:
        ExportError: ONNX Runtime disagrees with Keras.
    """
    names = images.dataset.class_names
    about = (",".join(layers), names, images.train.shape[1], tracker.run_id, config.seed)
    chosen = np.linspace(0, len(images.train) - 1, min(len(images.train), _VERIFIED_IMAGES))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "descriptors.onnx"
        report = export_truncated(
            network,
            {"descriptors": layers, "logits": "logits"},
            path,
            metadata=descriptor_metadata(network, *about),
            real_images=images.train[chosen.astype(int)],
            dense=dense,
        )
        graph = read_model(path)
    if len(grids) > 1:
        sizes = json.dumps([grid.image_size for grid in grids])
        graph = at_scales(graph, grids, {"scaled_sizes": sizes})
    records: list[Record] = [Param("dense_form", report.choice.form)] if report.choice else []
    tracker.log(
        *records,
        Param("descriptor_layer", ",".join(layers)),
        Metric("onnx/max_relative_error", max(report.errors.values())),
        Metric("time/export_s", report.seconds),
    )
    if report.choice:
        times = report.choice.milliseconds.items()
        tracker.log(*metrics({f"time/dense_{form}_ms": value for form, value in times}))
    return graph


def open_descriptor(
    graph: onnx.ModelProto, config: DeviceConfig, tracker: Tracker, dtype: str = "float32"
) -> OnnxModel:
    """Log the graph of a stage's descriptor as the model ``descriptors`` and open it.

    Args:
        graph: ``images`` uint8 [N, S, S, 3] to ``descriptors`` and, of a network, ``logits``.
        config: says where the graph runs.
        tracker: the stage's run.
        dtype: of the outputs.
    """
    content = graph.SerializeToString()
    model = OnnxModel(content, device=config.device, require_gpu=config.require_gpu)
    inputs = [TensorSpec(name, "uint8", shape) for name, shape in model.inputs.items()]
    outputs = [TensorSpec(name, dtype, shape) for name, shape in model.outputs.items()]
    metadata = {item.key: item.value for item in graph.metadata_props}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "descriptors.onnx"
        path.write_bytes(content)
        tracker.log(
            Tag("onnx_provider", model.provider),
            Model("descriptors", path, inputs, outputs, metadata),
        )
    return model


def descriptor_metadata(
    network: keras.Model,
    layer: str,
    class_names: Sequence[str],
    image_size: int,
    source_run: str,
    seed: int,
) -> dict[str, str]:
    """Return the metadata of an exported graph; images are resized to ``image_size`` pixels."""
    side = str(network.input_shape[1])
    return {
        "classes": json.dumps(list(class_names)),
        "layer": layer,
        "input_size": side,
        **({"patch_size": side} if network.name == PATCH_NETWORK else {}),
        "image_size": str(image_size),
        "source_run": source_run,
        "seed": str(seed),
        "scenetrack": __version__,
        "keras": importlib.metadata.version("keras"),
    }
