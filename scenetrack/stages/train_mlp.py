"""Task 1: an MLP on whole images made small, from the command line's topology to its test."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from scenetrack.config import TrainMlpConfig
from scenetrack.data.augment import ImageBatches
from scenetrack.evaluation import evaluate
from scenetrack.models import build_model
from scenetrack.records import Tag, Tracker
from scenetrack.stages.inputs import SceneImages, open_images
from scenetrack.stages.methods import file_names
from scenetrack.stages.network import TrainingData, train
from scenetrack.stages.result import StageResult

if TYPE_CHECKING:
    import keras


def train_mlp(config: TrainMlpConfig, tracker: Tracker) -> StageResult:
    """Train an MLP and test it once.

    Raises:
        InputError: the data, or the run to resume, cannot be used.
    """
    tracker.log(Tag("descriptor", "none"), Tag("encoder", "none"), Tag("classifier", "network"))
    images = open_images(config, tracker, config.image_size)
    dataset = images.dataset
    network = build_model(config, len(dataset.class_names))
    with tempfile.TemporaryDirectory() as folder:
        train_on_images(network, images, config, tracker, Path(folder))
    scores = network.predict(images.test, batch_size=256, verbose=0)
    evaluation = evaluate(dataset.test.labels, scores, dataset.class_names)
    tracker.log(*evaluation.records(file_names(dataset), title="MLP"))
    return StageResult(
        tracker.run_id,
        evaluation.summary("MLP"),
        {"MLP": evaluation},
        evaluation.metrics("test"),
    )


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
    data = TrainingData(batches, validation, images.dataset.digest, prefix=prefix)
    train(network, data, config, tracker, folder)
