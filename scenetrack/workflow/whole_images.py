"""Training batches of whole images, for the networks that take them."""

from __future__ import annotations

from scenetrack.config import TrainMlpConfig
from scenetrack.data.augment import ImageBatches
from scenetrack.workflow.dataset import SceneImages
from scenetrack.workflow.network_training import TrainingData


def training_images(images: SceneImages, config: TrainMlpConfig, prefix: str = "") -> TrainingData:
    """Return augmented batches of the fitted images, with the held-out ones for validation.

    Args:
        images: the data set at the network's size.
        config: augmentation, batch size and seed.
        prefix: goes before the curves' metric names.
    """
    labels, held_out = images.dataset.train.labels, images.held_out
    batches = ImageBatches(
        images.train, labels, images.fitted, config.augmentation, config.batch_size, config.seed
    )
    validation = (images.train[held_out], labels[held_out]) if len(held_out) else None
    return TrainingData(batches, validation, images, prefix=prefix)
