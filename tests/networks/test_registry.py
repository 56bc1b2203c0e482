"""Network builders: layers, shapes and seeds as their configs say."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest

from scenetrack.config import (
    ACTIVATIONS,
    LayerSvmConfig,
    PatchBowConfig,
    TrainingConfig,
    TrainMlpConfig,
)
from scenetrack.networks.registry import build_network


def names(model: keras.Model) -> list[str]:
    return [layer.name for layer in model.layers]


def images(size: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def mlp(**changed: object) -> TrainMlpConfig:
    return TrainMlpConfig(**({"image_size": 8, "hidden": (6, 4)} | changed))  # type: ignore[arg-type]


def patches(**changed: object) -> PatchBowConfig:
    settings = {"image_size": 16, "patch_size": 6, "whitening": 10, "hidden": (7,)}
    return PatchBowConfig(**(settings | changed))  # type: ignore[arg-type]


def test_mlp_layers_and_parameters_by_hand() -> None:
    model = build_network(mlp(batch_norm=False, dropout=0.2), 5)
    hidden = [f"{kind}_{k}" for k in (1, 2) for kind in ("dense", "hidden", "dropout")]
    assert names(model) == ["images", "rescaling", "pixels", *hidden, "logits", "probabilities"]
    expected = (8 * 8 * 3 * 6 + 6) + (6 * 4 + 4) + (4 * 5 + 5)
    # A dropout layer's random state is no parameter of the network.
    weights = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert weights == expected


def test_batch_norm_takes_the_place_of_the_bias() -> None:
    model = build_network(mlp(dropout=0.0), 5)
    assert names(model)[3:6] == ["dense_1", "batch_norm_1", "hidden_1"]
    assert not any("dropout" in name for name in names(model))
    assert not model.get_layer("dense_1").use_bias
    assert model.get_layer("logits").use_bias


def test_patch_network_with_everything() -> None:
    model = build_network(patches(), 8)
    assert model.get_layer("contrast").offset == 10.0
    assert model.get_layer("whitening").output.shape == (None, 10)
    assert model.get_layer("descriptor").output.shape == (None, 13)
    assert model.get_layer("hidden_1").output.shape == (None, 7)


def test_patch_network_with_nothing() -> None:
    bare = patches(contrast_offset=0.0, whitening=0, mean_colour=False, dropout=0.0)
    found = names(build_network(bare, 8))
    assert not {"contrast", "whitening", "mean_colour", "descriptor"} & set(found)
    assert found[:3] == ["images", "rescaling", "pixels"]


@pytest.mark.parametrize(
    ("contrast", "whitening", "colour"),
    list(itertools.product((0.0, 10.0), (0, 10), (False, True))),
)
def test_each_kind_of_patch_input_can_be_built(
    contrast: float, whitening: int, colour: bool
) -> None:
    config = patches(contrast_offset=contrast, whitening=whitening, mean_colour=colour)
    model = build_network(config, 8)
    width = (whitening or 108) + 3 * colour
    assert model.get_layer("dense_1").kernel.shape == (width, 7)
    assert model.predict(images(6), verbose=0).shape == (3, 8)


@pytest.mark.parametrize("config", [mlp(), patches(), LayerSvmConfig(hidden=(5,), image_size=8)])
def test_uint8_in_probabilities_out(config: TrainingConfig) -> None:
    model = build_network(config, 4)
    assert model.inputs[0].dtype == "uint8"
    result = model.predict(images(model.input_shape[1]), verbose=0)
    assert result.dtype == np.float32
    assert result.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    logits = keras.Model(model.inputs, model.get_layer("logits").output)
    odds = np.exp(logits.predict(images(model.input_shape[1]), verbose=0))
    assert result == pytest.approx(odds / odds.sum(axis=1, keepdims=True), abs=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_known_to_keras(activation: str) -> None:
    model = build_network(mlp(activation=activation, hidden=(6,)), 4)
    assert model.get_layer("hidden_1").activation is keras.activations.get(activation)


def test_weights_follow_the_seed_alone() -> None:
    first = build_network(mlp(seed=3), 4).get_weights()
    keras.utils.set_random_seed(99)
    again = build_network(mlp(seed=3, epochs=7, dropout=0.1), 4).get_weights()
    other = build_network(mlp(seed=4), 4).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
