"""Keras networks by name: uint8 RGB in; the last two layers are logits and probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from scenetrack.config import PatchBowConfig, TrainingConfig, TrainMlpConfig

PATCH_NETWORK = "patch_mlp"  # name of the networks that take patches of an image
PIXEL_MEAN = 127.5
PIXEL_SCALE = 64.0
WHITENING_BYTES = 2**28  # of float32 samples


def build_model(config: TrainingConfig, classes: int) -> keras.Model:
    """The untrained network that ``config`` describes, for ``classes`` classes.

    Its weights depend on ``config.seed`` alone. The input ``images`` is uint8 [N, S, S, 3]; the
    output is float32 [N, classes], probabilities that sum to one.
    """
    for kind, build in _BUILDERS.items():
        if isinstance(config, kind):
            keras.utils.set_random_seed(config.seed)
            return build(config, classes)
    raise TypeError(f"no network is known for {type(config).__name__}")


def whitening_samples(config: PatchBowConfig) -> int:
    """How many patches the whitening is learnt from: fewer where they are large."""
    within_memory = WHITENING_BYTES // (4 * 3 * config.patch_size**2)
    return max(min(50_000, within_memory), 2 * config.whitening)


def learn_whitening(network: keras.Model, patches: np.ndarray) -> None:
    """Set the ``whitening`` layer of a patch network from sample patches, before training.

    Args:
        network: of ``build_model``; one without that layer stays as it is.
        patches: uint8 [M, P, P, 3], of the images that the network is going to learn from.
    """
    if "whitening" not in {layer.name for layer in network.layers}:
        return
    before = keras.Model(network.inputs, network.get_layer("pixels").output)
    network.get_layer("whitening").adapt(before.predict(patches, batch_size=4096, verbose=0))


def _mlp(config: Any, classes: int) -> keras.Model:
    """An MLP on all pixels of a small image."""
    images = _image_input(config.image_size)
    values = keras.layers.Rescaling(
        1 / PIXEL_SCALE, offset=-PIXEL_MEAN / PIXEL_SCALE, name="rescaling"
    )(images)
    values = keras.layers.Flatten(name="pixels")(values)
    return keras.Model(images, _head(values, config, classes), name="mlp")


def _patch_mlp(config: Any, classes: int) -> keras.Model:
    """An MLP on one patch, contrast-normalised and whitened inside the network."""
    from scenetrack.models.layers import ContrastNormalization, Whitening

    images = _image_input(config.patch_size)
    scaled = keras.layers.Rescaling(
        1 / PIXEL_SCALE, offset=-PIXEL_MEAN / PIXEL_SCALE, name="rescaling"
    )(images)
    if config.contrast_offset:
        values = ContrastNormalization(config.contrast_offset, name="contrast")(images)
    else:
        values = scaled
    values = keras.layers.Flatten(name="pixels")(values)
    if config.whitening:
        values = Whitening(config.whitening, name="whitening")(values)
    if config.mean_colour:
        colour = keras.layers.GlobalAveragePooling2D(name="mean_colour")(scaled)
        values = keras.layers.Concatenate(name="descriptor")([values, colour])
    return keras.Model(images, _head(values, config, classes), name=PATCH_NETWORK)


def _image_input(size: int) -> Any:
    return keras.Input((size, size, 3), dtype="uint8", name="images")


def _head(values: Any, config: TrainingConfig, classes: int) -> Any:
    """Hidden layers dense_k, batch_norm_k, hidden_k, dropout_k; then logits, probabilities."""
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


_BUILDERS: dict[type[TrainingConfig], Callable[[Any, int], keras.Model]] = {
    TrainMlpConfig: _mlp,
    PatchBowConfig: _patch_mlp,
}
