"""Multilayer perceptron on all pixels of a small image."""

from __future__ import annotations

import keras

from scenetrack.config import TrainMlpConfig
from scenetrack.networks.dense_head import dense_head, image_input, rescaled


def mlp(config: TrainMlpConfig, classes: int) -> keras.Model:
    """Return the untrained network: uint8 [N, S, S, 3] to probabilities float32 [N, classes]."""
    images = image_input(config.image_size)
    values = keras.layers.Flatten(name="pixels")(rescaled(images))
    return keras.Model(images, dense_head(values, config, classes), name="mlp")
