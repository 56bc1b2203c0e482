"""Multilayer perceptron on one patch, with contrast normalisation and whitening as layers."""

from __future__ import annotations

import keras
import numpy as np

from scenetrack.config import PATCH_NETWORK, PatchBowConfig
from scenetrack.networks.dense_head import dense_head, image_input, rescaled
from scenetrack.networks.layers import ContrastNormalization, Whitening

WHITENING_BYTES = 2**28  # largest size of the float32 samples


def patch_mlp(config: PatchBowConfig, classes: int) -> keras.Model:
    """Return the untrained network: uint8 [N, P, P, 3] to probabilities float32 [N, classes]."""
    images = image_input(config.patch_size)
    scaled = rescaled(images)
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
    return keras.Model(images, dense_head(values, config, classes), name=PATCH_NETWORK)


def whitening_samples(config: PatchBowConfig) -> int:
    """Return the number of patches to fit the whitening to: fewer where they are large."""
    within_memory = WHITENING_BYTES // (4 * 3 * config.patch_size**2)
    return max(min(50_000, within_memory), 2 * config.whitening)


def learn_whitening(network: keras.Model, patches: np.ndarray) -> None:
    """Fit the ``whitening`` layer of a patch network to sample patches, before training.

    Args:
        network: a patch network; a network without that layer is not changed.
        patches: uint8 [M, P, P, 3], from the training images of the network.
    """
    if "whitening" not in {layer.name for layer in network.layers}:
        return
    before = keras.Model(network.inputs, network.get_layer("pixels").output)
    network.get_layer("whitening").adapt(before.predict(patches, batch_size=4096, verbose=0))
