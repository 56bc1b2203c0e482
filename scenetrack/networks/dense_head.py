"""Shared parts of the multilayer perceptrons: image input, hidden layers, logits."""

from __future__ import annotations

from typing import Any

import keras

from scenetrack.config import TrainingConfig

PIXEL_MEAN = 127.5
PIXEL_SCALE = 64.0


def image_input(size: int) -> Any:
    """Return the input ``images``, uint8 [N, size, size, 3]."""
    return keras.Input((size, size, 3), dtype="uint8", name="images")


def rescaled(images: Any) -> Any:
    """Return pixels as float32 of about zero mean and unit variance."""
    scale = keras.layers.Rescaling(
        1 / PIXEL_SCALE, offset=-PIXEL_MEAN / PIXEL_SCALE, name="rescaling"
    )
    return scale(images)


def dense_head(values: Any, config: TrainingConfig, classes: int) -> Any:
    """Add hidden layers dense_k, batch_norm_k, hidden_k, dropout_k; then logits, probabilities.

    Args:
        values: float32 [N, D].
        config: widths, activation, dropout, batch normalisation and the seed of the dropout.
        classes: number of classes C.

    Returns:
        float32 [N, C], probabilities.
    """
    for index, width in enumerate(config.hidden, start=1):
        values = keras.layers.Dense(width, use_bias=not config.batch_norm, name=f"dense_{index}")(
            values
        )
        if config.batch_norm:
            values = keras.layers.BatchNormalization(name=f"batch_norm_{index}")(values)
        values = keras.layers.Activation(config.activation, name=f"hidden_{index}")(values)
        if config.dropout:
            values = keras.layers.Dropout(
                config.dropout, seed=config.seed + index, name=f"dropout_{index}"
            )(values)
    logits = keras.layers.Dense(classes, name="logits")(values)
    return keras.layers.Activation("softmax", name="probabilities")(logits)
