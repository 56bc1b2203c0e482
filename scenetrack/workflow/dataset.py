"""The data set of a run: loaded, checked and logged."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scenetrack.config import DataConfig, DeviceConfig, EvaluatedConfig
from scenetrack.data.catalog import SceneDataset, Split, load_dataset, stratified_split
from scenetrack.data.images import load_images
from scenetrack.errors import ConfigError, InputError
from scenetrack.figures import draw_montage
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.records import DatasetInput, Figure, Table, Tag, Tracker
from scenetrack.system.files import ensure_writable, printable, user_path
from scenetrack.workflow.run_settings import LARGEST_SEED, number_of_run

logger = logging.getLogger(__name__)

# Classes in the montage of samples: how many at most, and how many have a row of their own.
_MOST_SHOWN, _MOST_IN_ROWS = 12, 8


def open_dataset(config: DataConfig, tracker: Tracker) -> SceneDataset:
    """Load the data set that ``config`` names, and log what it is.

    Raises:
        DataError: the data cannot be used.
    """
    dataset = load_dataset(config.data, seed=config.seed, skip_bad=config.skip_bad)
    if isinstance(config, EvaluatedConfig) and not config.test:
        dataset = dataset.without_test()
    logger.info(
        "%s: %d classes, %d training and %d test images%s",
        dataset.name,
        len(dataset.class_names),
        len(dataset.train),
        len(dataset.test),
        " (DEMO DATA: drawn scenes, no real photographs)" if dataset.name == "demo" else "",
    )
    tracker.log(
        Tag("dataset", dataset.name),
        Tag("dataset_digest", dataset.digest),
        Tag("demo_data", str(dataset.name == "demo").lower()),
        *dataset_inputs(dataset),
    )
    if dataset.bad_files:
        rows = [(str(path), reason) for path, reason in dataset.bad_files]
        tracker.log(Table("skipped_files.csv", ("file", "reason"), rows))
    return dataset


def onnx_target(output: str) -> Path:
    """Return the path of an ONNX file to write, in a folder that can be written.

    Raises:
        ConfigError: its name does not end in .onnx; it could replace a Keras model or an image.
        InputError: it cannot be a file there.
    """
    path = user_path(output)
    if path.suffix.lower() != ".onnx":
        raise ConfigError(f"output must end in .onnx. Received: {printable(output)}")
    if path.is_dir():
        raise InputError(f"output must be a file, but {printable(path)} is a folder: name another")
    ensure_writable(path.parent)
    return path


def dataset_of_run(params: Mapping[str, str], data: str) -> SceneDataset | None:
    """Return the data set that a run with these settings used; None if it is not available.

    Args:
        params: settings of the run: data, seed and skip_bad; none where they are not known.
        data: another data set to take instead; empty for the run's own.

    Raises:
        DataError: ``data`` cannot be used.
        ModelError: the run's seed is no number.
    """
    seed = number_of_run(params, "seed", 0, LARGEST_SEED)
    skip_bad = params.get("skip_bad") == "true"
    if data:
        return load_dataset(data, seed=seed, skip_bad=skip_bad)
    if not params.get("data"):
        return None
    try:
        return load_dataset(params["data"], seed=seed, skip_bad=skip_bad)
    except InputError as error:
        logger.warning("the run's data set %s cannot be used: %s", params["data"], error)
        return None


def check_device(config: DeviceConfig) -> None:
    """Raise ScenetrackError now, not after hours of work, if a GPU is required and none starts."""
    if not config.require_gpu:
        return
    builder = GraphBuilder("probe")
    builder.output("same", builder.input("values", np.float32, ["n"]), np.float32, ["n"])
    content = builder.build({}).SerializeToString()
    OnnxModel(content, device=config.device, require_gpu=True)


def dataset_inputs(dataset: SceneDataset) -> list[DatasetInput]:
    """Return the splits that a run uses, as MLflow dataset inputs."""
    splits = {"train": dataset.train, "test": dataset.test}
    return [_input_record(dataset, split, name) for name, split in splits.items() if len(split)]


def _input_record(dataset: SceneDataset, split: Split, context: str) -> DatasetInput:
    return DatasetInput(
        name=dataset.name,
        digest=dataset.digest,
        source=str(dataset.root),
        context=context,
        images=len(split),
        classes=dataset.class_names,
    )


@dataclass(frozen=True)
class SceneImages:
    """A data set's pixels at one size, and which training images validate.

    Attributes:
        dataset: where they come from.
        train: uint8 [N, S, S, 3], a memory map.
        test: the same; None where the test images are left alone.
        fitted: int64, training images that the network learns from.
        held_out: int64, training images kept for validation; may be empty.
    """

    dataset: SceneDataset
    train: np.ndarray
    test: np.ndarray | None
    fitted: np.ndarray
    held_out: np.ndarray


def open_images(config: DataConfig, tracker: Tracker, size: int, validation: float) -> SceneImages:
    """Load the data set of ``config`` as images of ``size`` x ``size`` pixels, with a montage.

    Args:
        validation: stratified part of the training images that is held out.
    """
    dataset = open_dataset(config, tracker)
    train = load_images(dataset.train.paths, size)
    test = load_images(dataset.test.paths, size) if len(dataset.test) else None
    fitted, held_out = stratified_split(dataset.train.labels, validation, config.seed)
    tracker.log(_samples(dataset))
    return SceneImages(dataset, train, test, fitted, held_out)


def _samples(dataset: SceneDataset) -> Figure:
    """Draw a row for each class, or for two where there are many; of very many only some."""
    labels, classes = dataset.train.labels, len(dataset.class_names)
    shown = np.linspace(0, classes - 1, min(classes, _MOST_SHOWN)).round().astype(int)
    per_class, columns = (4, 4) if classes <= _MOST_IN_ROWS else (3, 6)
    chosen = np.concatenate([np.flatnonzero(labels == k)[:per_class] for k in shown])
    images = load_images([dataset.train.paths[i] for i in chosen], 128)
    titles = [dataset.class_names[labels[i]] for i in chosen]
    title = f"{len(shown)} of {classes} classes" if len(shown) < classes else ""
    return draw_montage(images, titles, columns, title=title, name="figures/samples.png")
