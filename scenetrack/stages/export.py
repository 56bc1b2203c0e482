"""A network cut at a layer as one verified ONNX file, in the precision asked for."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scenetrack.config import PATCH_NETWORK, ExportConfig
from scenetrack.data.images import load_images
from scenetrack.descriptors.aggregation import aggregate
from scenetrack.errors import ConfigError, InputError, ModelError
from scenetrack.export.dense import Dense
from scenetrack.export.truncate import ExportReport, export_truncated, find_layer
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.system.terminal import say
from scenetrack.workflow.dataset import check_device, dataset_of_run, onnx_target
from scenetrack.workflow.descriptor_export import descriptor_metadata
from scenetrack.workflow.network import layer_table, take
from scenetrack.workflow.run_settings import (
    LARGEST_SEED,
    LARGEST_SIDE,
    aggregation_of_run,
    number_of_run,
)

if TYPE_CHECKING:
    import keras

    from scenetrack.data.dataset import SceneDataset
    from scenetrack.tracking import RunInfo

logger = logging.getLogger(__name__)

_VERIFIED_IMAGES = 64
_TESTED_AT_ONCE = 32


def export(config: ExportConfig) -> None:
    """Write the file and print what it holds, how it was verified and what its precision costs.

    Raises:
        InputError: the run, the layer, the data or the file cannot be used.
        ExportError: the graph differs from the network; nothing is written.
    """
    if not config.run:
        raise InputError("a run id or .keras file is required. Received: none; name one")
    check_device(config)
    path = onnx_target(config.output)
    network = take(config.run, "")
    if config.layer == "list":
        say(layer_table(network))
        return
    layer = find_layer(network, config.layer).name
    run = _run(config.run)
    params = run.params if run else {}
    dense = _dense(config, network, params)
    dataset = dataset_of_run(params, config.data)
    size = _image_size(network, params, dense)
    classes = _classes(run, dataset, network.output_shape[-1])
    seed = number_of_run(params, "seed", 0, LARGEST_SEED)
    report = export_truncated(
        network,
        {"descriptors": layer},
        path,
        metadata=descriptor_metadata(network, layer, classes, size, Path(config.run).name, seed),
        real_images=_real_images(dataset, network, size, dense),
        seed=seed,
        dense=dense,
        precision=config.precision,
    )
    say(_description(config, report, dataset))
    if config.precision != "fp32":
        tested = dataset if dataset and dataset.class_names == classes else None
        say(_accuracy_change(config, network, tested, params, size))


def _run(run: str) -> RunInfo | None:
    """Return what is known of the run; None for a file or a model of the registry."""
    from scenetrack.tracking import resolve_run

    return None if run.endswith(".keras") or ":/" in run else resolve_run(run)


def _classes(run: RunInfo | None, dataset: SceneDataset | None, count: int) -> tuple[str, ...]:
    """Return the run's own names of the classes, else those of the data if there are as many."""
    if run and run.classes:
        return run.classes
    names = dataset.class_names if dataset else ()
    return names if len(names) == count else ()


def _dense(config: ExportConfig, network: keras.Model, params: Mapping[str, str]) -> Dense | None:
    if not config.dense:
        return None
    stride = config.stride or number_of_run(params, "stride", 0, LARGEST_SIDE)
    if not stride:
        raise ConfigError(
            "a dense form needs the pixels between its patches, and the network's run tells none: "
            f"add --stride, for instance {max(1, network.input_shape[1] // 4)}"
        )
    return Dense(stride, config.form, config.device)


def _image_size(network: keras.Model, params: Mapping[str, str], dense: Dense | None) -> int:
    """Return the side in pixels of the images that the network, or its dense form, is meant for."""
    side = int(network.input_shape[1])
    if network.name == PATCH_NETWORK or dense:
        return max(side, number_of_run(params, "image_size", 2 * side, LARGEST_SIDE))
    return side


def _real_images(
    dataset: SceneDataset | None, network: keras.Model, size: int, dense: Dense | None
) -> np.ndarray | None:
    """Return some training images of every class; patches for a patch network not made dense."""
    if dataset is None:
        logger.info("no data set is at hand: verifying on random images only")
        return None
    count = len(dataset.train)
    chosen = np.linspace(0, count - 1, min(count, _VERIFIED_IMAGES)).astype(int)
    images = load_images([dataset.train.paths[index] for index in chosen], size)
    side = network.input_shape[1]
    return images if dense else images[:, :side, :side]


def _description(config: ExportConfig, report: ExportReport, dataset: SceneDataset | None) -> str:
    onnx = OnnxModel(report.path, device="cpu")
    shapes = [
        f"{name} [{', '.join('any' if length < 0 else str(length) for length in shape)}]"
        for name, shape in (*onnx.inputs.items(), *report.outputs.items())
    ]
    size = report.path.stat().st_size / 1e6
    lines = [f"wrote {report.path}: {' -> '.join(shapes)}, {config.precision}, {size:.1f} MB"]
    if report.choice:
        lines.append(f"dense form: {report.choice}")
    on = "random and real images" if dataset else "random images"
    error = max(report.errors.values())
    lines.append(f"fp32 agrees with Keras to {error:.1e} of the values' range on {on}")
    if report.cosine:
        lines.append(f"mean cosine with fp32: {report.cosine['descriptors']:.5f}")
    return "\n".join(lines)


def _accuracy_change(
    config: ExportConfig,
    network: keras.Model,
    dataset: SceneDataset | None,
    params: Mapping[str, str],
    size: int,
) -> str:
    """Measure what the precision does to the whole network's accuracy on the test images."""
    if dataset is None or not len(dataset.test):
        return (
            "test accuracy: not measured, for no data set of its classes is at hand; name one "
            "with --data"
        )
    try:
        find_layer(network, "logits")
    except ModelError:
        return "test accuracy: not measured, for the network has no layer named logits"
    patches = network.name == PATCH_NETWORK
    if patches and not (config.stride or params.get("stride")):
        return "test accuracy: not measured, for the run tells no stride; name one with --stride"
    stride = config.stride or number_of_run(params, "stride", 0, LARGEST_SIDE)
    dense = Dense(stride, config.form, config.device) if patches else None
    images = load_images(dataset.test.paths, size, dataset.test.digests)
    shares = {}
    for precision in ("fp32", config.precision):
        with tempfile.TemporaryDirectory() as folder:
            report = export_truncated(
                network,
                {"logits": "logits"},
                Path(folder) / "logits.onnx",
                metadata={"image_size": str(size)},
                real_images=images[:8] if dense or not patches else None,
                dense=dense,
                precision=precision,
            )
            model = OnnxModel(report.path, device=config.device)
            labels = _labels(model, images, aggregation_of_run(params))
        shares[precision] = float(np.mean(labels == dataset.test.labels))
    change = 100 * (shares[config.precision] - shares["fp32"])
    return (
        f"test accuracy of the network on {len(images)} images: fp32 {shares['fp32']:.4f}, "
        f"{config.precision} {shares[config.precision]:.4f} ({change:+.2f} points)"
    )


def _labels(model: OnnxModel, images: np.ndarray, aggregation: str) -> np.ndarray:
    """Return the most probable class of each image: int64 [N]."""
    labels = []
    for start in range(0, len(images), _TESTED_AT_ONCE):
        logits = model.run(images=images[start : start + _TESTED_AT_ONCE])["logits"]
        if logits.ndim == 4:  # N x grid_h x grid_w x C
            rows = logits.reshape(len(logits), -1, logits.shape[-1])
            logits = aggregate(rows, aggregation)
        labels.append(logits.argmax(axis=1))
    return np.concatenate(labels)
