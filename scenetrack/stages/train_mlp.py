"""Task 1: an MLP on whole images made small, from the command line's topology to its test."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scenetrack.config import TrainMlpConfig
from scenetrack.data.augment import ImageBatches
from scenetrack.networks.registry import build_network
from scenetrack.records import Tag, Tracker, metrics
from scenetrack.workflow.dataset import SceneImages, open_images
from scenetrack.workflow.evaluation import evaluate_on_test, evaluation_records, validation_figures
from scenetrack.workflow.network_training import TrainingData, train
from scenetrack.workflow.result import MLP, StageResult, untested

if TYPE_CHECKING:
    import keras


def train_mlp(config: TrainMlpConfig, tracker: Tracker) -> StageResult:
    """Train an MLP and test it once.

    Raises:
        InputError: the data, or the run to resume, cannot be used.
    """
    tracker.log(Tag("descriptor", "none"), Tag("encoder", "none"), Tag("classifier", "network"))
    images = open_images(config, tracker, config.image_size, config.validation)
    dataset = images.dataset
    network = build_network(config, len(dataset.class_names))
    with tempfile.TemporaryDirectory() as folder:
        train_on_images(network, images, config, tracker, Path(folder))
    held_out = images.held_out
    figures = {"temperature": config.given_temperature(MLP) or 1.0}
    if len(held_out):
        scores = _logits(network, images.train[held_out])
        figures = validation_figures(scores, dataset.train.labels[held_out])
    # The curve of the accuracy ends with the kept model's already.
    tracker.log(
        *metrics({name: value for name, value in figures.items() if name != "val/accuracy"})
    )
    if not config.test:
        return untested(tracker.run_id, {MLP: figures})
    evaluation = evaluate_on_test(dataset, _logits(network, images.test), figures["temperature"])
    tracker.log(*evaluation_records(evaluation, dataset, MLP))
    found = {**figures, **evaluation.metrics()}
    return StageResult(
        tracker.run_id, evaluation.summary(MLP), {MLP: evaluation}, found, {MLP: found}
    )


def _logits(network: keras.Model, pixels: np.ndarray) -> np.ndarray:
    """What the network says of images before its softmax: float32 [N, C]."""
    import keras

    logits = keras.Model(network.inputs, network.get_layer("logits").output)
    return np.asarray(logits.predict(pixels, batch_size=256, verbose=0))


def train_on_images(
    network: keras.Model,
    images: SceneImages,
    config: TrainMlpConfig,
    tracker: Tracker,
    folder: Path,
    prefix: str = "",
) -> None:
    """Train ``network`` on the fitted images, with the held-out ones for validation.

    ``prefix`` goes before the curves' metric names.
    """
    labels = images.dataset.train.labels
    held_out = images.held_out
    batches = ImageBatches(
        images.train, labels, images.fitted, config.augmentation, config.batch_size, config.seed
    )
    validation = (images.train[held_out], labels[held_out]) if len(held_out) else None
    data = TrainingData(batches, validation, images, prefix=prefix)
    train(network, data, config, tracker, folder)
