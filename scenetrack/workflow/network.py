"""The network of a stage: chosen, checked, and cut at a layer for ONNX Runtime."""

from __future__ import annotations

import importlib.metadata
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scenetrack import __version__
from scenetrack.config import PATCH_NETWORK, LayerSvmConfig, PatchBowConfig
from scenetrack.data.patches import PatchGrid
from scenetrack.errors import ModelError
from scenetrack.export.dense import Dense
from scenetrack.export.scales import at_scales
from scenetrack.export.truncate import export_truncated, find_layers, joined_output, layer_names
from scenetrack.graphs.digest import model_digest
from scenetrack.graphs.files import read_model
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.networks.registry import build_network
from scenetrack.networks.training import load_model
from scenetrack.records import (
    Metric,
    Model,
    Param,
    Record,
    Tag,
    TensorSpec,
    Tracker,
    metrics,
)
from scenetrack.workflow.dataset import SceneImages, check_device, open_images
from scenetrack.workflow.method_runs import check_cross_validation

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)

_VERIFIED_IMAGES = 64


def take(model: str, experiment: str) -> keras.Model:
    """The Keras network of a run or file.

    Raises:
        ModelError: there is no such model, or it is no classifier of square RGB images.
    """
    from scenetrack.tracking import resolve_model

    path = resolve_model(model, experiment)
    network = load_model(path)
    inputs = [tuple(tensor.shape) for tensor in network.inputs]
    outputs = [tuple(tensor.shape) for tensor in network.outputs]
    shape = inputs[0]
    is_square = len(shape) == 4 and shape[1] is not None and shape[1:] == (shape[1], shape[1], 3)
    if len(inputs) > 1 or not is_square:
        raise ModelError(
            "a network that takes RGB images of one fixed square size is required, but "
            f"{path.name} takes {' and '.join(map(str, inputs))}"
        )
    if len(outputs) > 1 or len(outputs[0]) != 2:
        raise ModelError(
            "a network that gives one probability for each class is required, but "
            f"{path.name} gives {' and '.join(map(str, outputs))}"
        )
    return network


@dataclass(frozen=True)
class ChosenNetwork:
    """The network of a stage that cuts it at a layer, and the images to use it on.

    Attributes:
        network: a taken one, or a new one that is still to be trained.
        is_new: whether it is still to be trained.
        layers: names of the layers to cut at, whose outputs are joined.
        images: the data set at the size that the stage asked for.
    """

    network: keras.Model
    is_new: bool
    layers: tuple[str, ...]
    images: SceneImages


def choose_network(
    config: LayerSvmConfig | PatchBowConfig, tracker: Tracker, size_parameter: str
) -> ChosenNetwork:
    """Take or build the network; what does not fit is refused before the data are read.

    Args:
        config: of the stage.
        tracker: of the stage's run.
        size_parameter: name of the parameter that is the side of the network's input.

    Raises:
        InputError: the model, the layer or the data cannot be used.
    """
    check_device(config)
    taken = take(config.model, config.experiment) if config.model else None
    planned = taken or build_network(config, classes=2)
    check_fits(planned, size_parameter, getattr(config, size_parameter))
    layers = find_layers(planned, config.layer)
    images = open_images(config, tracker, config.image_size, config.validation)
    check_cross_validation(images.dataset)
    classes = len(images.dataset.class_names)
    network = taken or build_network(config, classes)
    check_classes(network, classes)
    return ChosenNetwork(network, taken is None, layers, images)


def check_fits(network: keras.Model, name: str, size: int) -> None:
    """Raise ModelError unless the network takes ``size`` px and has the layer ``logits``.

    ``name`` is the parameter that sets the size.
    """
    expected = network.input_shape[1]
    if expected != size:
        raise ModelError(
            f"the network takes {expected} px, but {name} is {size}: "
            f"add --{name.replace('_', '-')} {expected}"
        )
    if "logits" not in {layer.name for layer in network.layers}:
        raise ModelError(
            "a network with a layer named logits before its softmax is required, as scenetrack "
            f"trains them. Received layers: {', '.join(layer.name for layer in network.layers)}"
        )


def check_classes(network: keras.Model, classes: int) -> None:
    """Raise ModelError unless the network tells ``classes`` classes apart."""
    if network.output_shape[-1] != classes:
        raise ModelError(
            f"a network for the data set's {classes} classes is required, but this one tells "
            f"{network.output_shape[-1]} apart: choose its own data set, or train another"
        )


@dataclass(frozen=True)
class ExportedDescriptor:
    """A descriptor's graph, open, and the digest of what it computes."""

    model: OnnxModel
    digest: str


def export_descriptor(
    network: keras.Model,
    layers: Sequence[str],
    images: SceneImages,
    config: LayerSvmConfig | PatchBowConfig,
    tracker: Tracker,
    folder: Path,
    dense: Dense | None = None,
    sizes: Sequence[int] = (),
) -> ExportedDescriptor:
    """The network up to ``layers`` as verified ONNX, logged and opened.

    The graph gives ``descriptors``, the layers' outputs joined, and ``logits``, the network's own
    verdict, so that one pass serves both ways to a class.

    Args:
        images: some of the training images verify the export.
        dense: for a patch network, how to apply it to whole images.
        sizes: of the images that it is applied to, for several of them in one graph.

    Raises:
        ExportError: ONNX Runtime disagrees with Keras.
    """
    path = folder / "descriptors.onnx"
    metadata = descriptor_metadata(
        network,
        ",".join(layers),
        images.dataset.class_names,
        config.image_size,
        tracker.run_id,
        config.seed,
    )
    chosen = np.linspace(0, len(images.train) - 1, min(len(images.train), _VERIFIED_IMAGES))
    report = export_truncated(
        network,
        {"descriptors": layers, "logits": "logits"},
        path,
        metadata=metadata,
        real_images=images.train[chosen.astype(int)],
        dense=dense,
    )
    if len(sizes) > 1 and isinstance(config, PatchBowConfig):
        scaled = at_scales(read_model(path), patch_grids(config), _scale_metadata(sizes))
        path.write_bytes(scaled.SerializeToString())
    onnx = OnnxModel(path, device=config.device, require_gpu=config.require_gpu)
    inputs = [TensorSpec(name, "uint8", shape) for name, shape in onnx.inputs.items()]
    specs = [TensorSpec(name, "float32", shape) for name, shape in onnx.outputs.items()]
    records: list[Record] = [Param("dense_form", report.choice.form)] if report.choice else []
    tracker.log(
        *records,
        Param("descriptor_layer", ",".join(layers)),
        Tag("onnx_provider", onnx.provider),
        Metric("onnx/max_relative_error", max(report.errors.values())),
        Metric("time/export_s", report.seconds),
        Model("descriptors", path, inputs, specs, metadata),
    )
    if report.choice:
        times = report.choice.milliseconds.items()
        tracker.log(*metrics({f"time/dense_{form}_ms": value for form, value in times}))
    return ExportedDescriptor(onnx, model_digest(path.read_bytes()))


def patch_grids(config: PatchBowConfig) -> list[PatchGrid]:
    """Where the patches lie in the image at each scale."""
    return [PatchGrid(size, config.patch_size, config.stride) for size in config.scaled_sizes]


def _scale_metadata(sizes: Sequence[int]) -> dict[str, str]:
    return {"scaled_sizes": json.dumps(list(sizes))}


def descriptor_metadata(
    network: keras.Model,
    layer: str,
    class_names: Sequence[str],
    image_size: int,
    source_run: str,
    seed: int,
) -> dict[str, str]:
    """What an exported graph says of itself; ``image_size`` is the side images are resized to."""
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


def descriptor_width(network: keras.Model, layers: Sequence[str]) -> int:
    """How many values the layers together give for one input."""
    return int(np.prod(joined_output(network, layers).shape[1:]))


def layer_table(network: keras.Model) -> str:
    """The layers of ``network`` with their kinds and output shapes, a line each."""
    rows = [
        (name, kind, " x ".join(str(length) for length in shape[1:]))
        for name, kind, shape in layer_names(network)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(
        f"{name.ljust(widths[0])}  {kind.ljust(widths[1])}  {shape}" for name, kind, shape in rows
    )
