"""The package's own Keras layers against NumPy."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from scenetrack.networks.layers import ContrastNormalization, Whitening
from scenetrack.networks.training import load_model, save_model


@pytest.fixture
def patches() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 5, 5, 3), np.uint8)


@pytest.fixture
def correlated() -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.normal(size=(4000, 8)) @ rng.normal(size=(8, 8)) * 20 + rng.normal(size=8) * 50


class TestContrast:
    def test_by_hand(self) -> None:
        patch = np.array([0, 0, 0, 8], np.uint8).reshape(1, 2, 2, 1)
        # Mean 2, deviations -2, -2, -2, 6, standard deviation sqrt(48 / 4).
        expected = np.array([-2, -2, -2, 6]) / (np.sqrt(12) + 10)
        result = np.asarray(ContrastNormalization(10.0)(patch))
        assert result.ravel() == pytest.approx(expected, rel=1e-6)

    def test_is_ten_lines_of_numpy(self, patches: np.ndarray) -> None:
        result = np.asarray(ContrastNormalization(10.0)(patches))
        for patch, normalised in zip(patches.astype(np.float64), result, strict=True):
            expected = (patch - patch.mean()) / (patch.std() + 10)
            assert normalised == pytest.approx(expected, abs=1e-5)

    def test_flat_patch_is_zero(self) -> None:
        result = ContrastNormalization(10.0)(np.full((1, 4, 4, 3), 200, np.uint8))
        assert np.asarray(result) == pytest.approx(np.zeros((1, 4, 4, 3)), abs=1e-4)


class TestWhitening:
    def test_gives_uncorrelated_values_of_variance_one(self, correlated: np.ndarray) -> None:
        layer = Whitening(8, epsilon=0.0)
        layer.build(correlated.shape)
        layer.adapt(correlated)
        white = np.asarray(layer(correlated.astype(np.float32)), np.float64)
        assert white.mean(axis=0) == pytest.approx(np.zeros(8), abs=1e-3)
        assert np.cov(white.T, bias=True) == pytest.approx(np.eye(8), abs=1e-2)

    def test_is_ten_lines_of_numpy(self, correlated: np.ndarray) -> None:
        layer = Whitening(3, epsilon=0.1)
        layer.build(correlated.shape)
        layer.adapt(correlated)
        centred = correlated - correlated.mean(axis=0)
        _, scales, axes = np.linalg.svd(centred, full_matrices=False)
        variances = scales**2 / len(centred)
        expected = centred @ axes[:3].T / np.sqrt(variances[:3] + 0.1 * variances.mean())
        result = np.asarray(layer(correlated.astype(np.float32)))
        assert np.abs(result) == pytest.approx(np.abs(expected), abs=1e-3)
        directions = np.asarray(layer.projection)
        largest = np.abs(directions).argmax(axis=0)
        assert (directions[largest, range(3)] > 0).all()

    def test_constant_samples_stay_finite(self) -> None:
        layer = Whitening(2)
        layer.build((None, 4))
        layer.adapt(np.full((10, 4), 3.0))
        assert np.isfinite(np.asarray(layer(np.ones((1, 4), np.float32)))).all()


def test_saved_in_safe_mode_and_loaded_the_same(patches: np.ndarray, tmp_path: Path) -> None:
    images = keras.Input((5, 5, 3), dtype="uint8")
    values = keras.layers.Flatten()(ContrastNormalization(10.0)(images))
    whitening = Whitening(7, epsilon=0.01)
    network = keras.Model(images, whitening(values))
    whitening.adapt(np.random.default_rng(2).normal(size=(100, 75)))
    save_model(network, tmp_path / "network.keras")
    loaded = load_model(tmp_path / "network.keras")
    expected = network.predict(patches, verbose=0)
    assert expected.shape == (6, 7)
    assert np.array_equal(loaded.predict(patches, verbose=0), expected)
    assert loaded.layers[-1].epsilon == 0.01
