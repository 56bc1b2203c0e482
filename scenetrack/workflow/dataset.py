"""The data set of a run: loaded, checked and logged."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from scenetrack.config import DataConfig, DeviceConfig, EvaluatedConfig
from scenetrack.data.catalog import load_dataset, stratified_split
from scenetrack.data.dataset import SceneDataset, Split
from scenetrack.data.duplicates import in_train, in_two_classes
from scenetrack.data.images import load_images
from scenetrack.errors import ConfigError, InputError
from scenetrack.figures import draw_montage
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.records import DatasetInput, Figure, Metric, Record, Table, Tag, Tracker
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
    dataset = load_data(config)
    overlap = _overlap(dataset)
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
        *overlap,
    )
    if dataset.bad_files:
        rows = [(str(path), reason) for path, reason in dataset.bad_files]
        tracker.log(Table("skipped_files.csv", ("file", "reason"), rows))
    if dataset.left_out:
        logger.info(
            "training images left out because they are in test too: %d", len(dataset.left_out)
        )
        tracker.log(Table("dropped_duplicates.csv", ("left out", "test image"), dataset.left_out))
    return dataset


def load_data(config: DataConfig) -> SceneDataset:
    """Load the data set that ``config`` names.

    Raises:
        DataError: the data cannot be used.
    """
    return load_dataset(
        config.data,
        seed=config.seed,
        skip_bad=config.skip_bad,
        drop_duplicates=config.drop_duplicates,
    )


def _overlap(dataset: SceneDataset) -> list[Record]:
    """Return what the run says of images that are in train and test, or in two classes; warn."""
    copies, twofold = int(in_train(dataset).sum()), in_two_classes(dataset)
    if copies:
        logger.warning(
            "test images that are also in train: %d of %d; accuracy is logged with and without "
            "them, and --drop-duplicates true leaves the training copies out",
            copies,
            len(dataset.test),
        )
    if twofold:
        logger.warning(
            "images that stand in two classes: %d, the first is %s; remove what is wrong",
            len(twofold),
            " = ".join(map(printable, twofold[0])),
        )
    counts = {"test_images_in_train": copies, "images_in_two_classes": len(twofold)}
    return [
        *(Metric(f"data/{name}", count) for name, count in counts.items()),
        *(Tag(name, str(count)) for name, count in counts.items() if count),
    ]


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
        params: settings of the run: those of ``DataConfig``; none where they are not known.
        data: another data set to take instead; empty for the run's own.

    Raises:
        DataError: ``data`` cannot be used.
        ModelError: the run's seed is no number.
    """
    load = partial(
        load_dataset,
        seed=number_of_run(params, "seed", 0, LARGEST_SEED),
        skip_bad=params.get("skip_bad") == "true",
        drop_duplicates=params.get("drop_duplicates") == "true",
    )
    if data:
        return load(data)
    if not params.get("data"):
        return None
    try:
        return load(params["data"])
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
        network_knows: whether the stage's network learns, or has learnt, the labels of the fitted
            images: figures of those inside train are then no estimate for new ones.
    """

    dataset: SceneDataset
    train: np.ndarray
    test: np.ndarray | None
    fitted: np.ndarray
    held_out: np.ndarray
    network_knows: bool = True


def open_images(config: DataConfig, tracker: Tracker, size: int, validation: float) -> SceneImages:
    """Load the data set of ``config`` as images of ``size`` x ``size`` pixels, with a montage.

    Args:
        validation: stratified part of the training images that is held out.
    """
    dataset = open_dataset(config, tracker)
    train, test = dataset.train, dataset.test
    train_pixels = load_images(train.paths, size, train.digests)
    test_pixels = load_images(test.paths, size, test.digests) if len(test) else None
    fitted, held_out = stratified_split(dataset.train.labels, validation, config.seed)
    tracker.log(_samples(dataset))
    return SceneImages(dataset, train_pixels, test_pixels, fitted, held_out)


def _samples(dataset: SceneDataset) -> Figure:
    """Draw a row for each class, or for two where there are many; of very many only some."""
    labels, classes = dataset.train.labels, len(dataset.class_names)
    shown = np.linspace(0, classes - 1, min(classes, _MOST_SHOWN)).round().astype(int)
    per_class, columns = (4, 4) if classes <= _MOST_IN_ROWS else (3, 6)
    chosen = np.concatenate([np.flatnonzero(labels == k)[:per_class] for k in shown])
    shown_split = dataset.train.subset(chosen)
    images = load_images(shown_split.paths, 128, shown_split.digests)
    titles = [dataset.class_names[labels[i]] for i in chosen]
    title = f"{len(shown)} of {classes} classes" if len(shown) < classes else ""
    return draw_montage(images, titles, columns, title=title, name="figures/samples.png")
