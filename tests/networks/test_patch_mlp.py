"""Whitening learnt from patches before a patch network is trained."""

from __future__ import annotations

import keras
import numpy as np

from scenetrack.config import PatchBowConfig
from scenetrack.networks.patch_mlp import learn_whitening
from scenetrack.networks.registry import build_network

PATCHES = np.random.default_rng(0).integers(0, 256, (400, 4, 4, 3), np.uint8)


def settings(whitening: int) -> PatchBowConfig:
    return PatchBowConfig(
        image_size=8, patch_size=4, whitening=whitening, hidden=(4,), contrast_offset=0.0
    )


def test_whitened_patches_are_centred_and_uncorrelated() -> None:
    network = build_network(settings(5), classes=2)
    learn_whitening(network, PATCHES)
    part = keras.Model(network.inputs, network.get_layer("whitening").output)
    values = part.predict(PATCHES, verbose=0)
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-4)
    # The regularisation shortens every direction a little.
    np.testing.assert_allclose(np.cov(values.T), np.eye(5), atol=2e-3)


def test_a_network_without_whitening_stays_as_it_is() -> None:
    network = build_network(settings(0), classes=2)
    before = network.get_weights()
    learn_whitening(network, PATCHES)
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
