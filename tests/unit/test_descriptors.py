"""Local descriptors through ONNX Runtime against Keras, and scores of images from patches."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenetrack import descriptors
from scenetrack.config import AGGREGATIONS, PatchBowConfig
from scenetrack.data.patches import PatchGrid, sample_patches
from scenetrack.descriptors import LayerDescriptor, aggregate
from scenetrack.export.dense import Dense
from scenetrack.export.truncate import export_truncated
from scenetrack.models import build_model
from scenetrack.runtime import OnnxModel


@pytest.fixture(scope="module")
def network() -> keras.Model:
    config = PatchBowConfig(image_size=16, patch_size=6, whitening=10, hidden=(9, 5), epochs=1)
    model = build_model(config, 3)
    patches = np.random.default_rng(0).integers(0, 256, (400, 6, 6, 3), np.uint8)
    before = keras.Model(model.inputs, model.get_layer("pixels").output)
    model.get_layer("whitening").adapt(before.predict(patches, verbose=0))
    return model


@pytest.fixture(scope="module")
def onnx(network: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    path: Path = tmp_path_factory.mktemp("export") / "descriptors.onnx"
    outputs = {"descriptors": "hidden_2", "logits": "logits"}
    report = export_truncated(
        network, outputs, path, metadata={}, real_images=None, dense=Dense(3, "patches")
    )
    return OnnxModel(report.path)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (7, 16, 16, 3), np.uint8)


def keras_outputs(network: keras.Model, patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    layers = [network.get_layer(name).output for name in ("hidden_2", "logits")]
    values, logits = keras.Model(network.inputs, layers).predict(patches, verbose=0)
    return values, logits


@pytest.mark.parametrize("at_once", [1, 20, 40, 10**6])
def test_describe_is_direct_prediction_patch_by_patch(
    network: keras.Model,
    onnx: OnnxModel,
    images: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
) -> None:
    monkeypatch.setattr(descriptors, "PATCHES_AT_ONCE", at_once)
    grid = PatchGrid(16, 6, 3)
    descriptor = LayerDescriptor(onnx, grid)
    parts = list(descriptor.describe(images, "describing"))
    most = max(1, at_once // 16)
    assert [part.images.stop - part.images.start for part in parts[:-1]] == [most] * (
        len(parts) - 1
    )
    assert [index for part in parts for index in range(7)[part.images]] == list(range(7))
    values = np.concatenate([part.values for part in parts])
    logits = np.concatenate([part.logits for part in parts])
    assert (values.shape, logits.shape) == ((7, 16, 5), (7, 16, 3))
    assert values.dtype == logits.dtype == np.float32
    assert descriptor.described == 7
    assert descriptor.images_per_second == pytest.approx(7 / descriptor.seconds)
    for position, (y, x) in enumerate(parts[0].positions):
        patch = images[:, y : y + 6, x : x + 6]
        expected_values, expected_logits = keras_outputs(network, patch)
        assert values[:, position] == pytest.approx(expected_values, abs=1e-4)
        assert logits[:, position] == pytest.approx(expected_logits, abs=1e-4)


def test_sample_describes_random_patches(
    network: keras.Model, onnx: OnnxModel, images: np.ndarray
) -> None:
    descriptor = LayerDescriptor(onnx, PatchGrid(16, 6, 3))
    values = descriptor.sample(images, 30, seed=5)
    expected, _ = keras_outputs(network, sample_patches(images, 6, 30, seed=5))
    assert values == pytest.approx(expected, abs=1e-4)
    assert descriptor.images_per_second == 0


class TestAggregate:
    # Two images, three patches each, two classes.
    LOGITS = np.array([[[1, 4], [5, 0], [3, 2]], [[-1, -4], [-7, -2], [-5, -3]]], dtype=np.float32)

    @pytest.mark.parametrize(
        ("how", "expected"),
        [
            ("mean", [[3, 2], [-13 / 3, -3]]),
            ("max", [[5, 4], [-1, -2]]),
            ("vote", [[2 / 3, 1 / 3], [1 / 3, 2 / 3]]),
        ],
    )
    def test_by_hand(self, how: str, expected: list[list[float]]) -> None:
        scores = aggregate(self.LOGITS, how)
        assert scores.dtype == np.float32
        assert scores == pytest.approx(np.array(expected), rel=1e-6)

    @given(st.sampled_from(AGGREGATIONS), st.permutations(range(6)), st.integers(0, 99))
    def test_the_order_of_the_patches_does_not_matter(
        self, how: str, order: list[int], seed: int
    ) -> None:
        logits = np.random.default_rng(seed).normal(size=(2, 6, 4)).astype(np.float32)
        assert aggregate(logits[:, order], how) == pytest.approx(aggregate(logits, how), abs=1e-6)

    @given(st.sampled_from(AGGREGATIONS), st.integers(0, 99))
    def test_one_patch_decides_alone(self, how: str, seed: int) -> None:
        logits = np.random.default_rng(seed).normal(size=(5, 1, 4)).astype(np.float32)
        assert np.array_equal(aggregate(logits, how).argmax(axis=1), logits[:, 0].argmax(axis=1))

    def test_votes_sum_to_one(self) -> None:
        logits = np.random.default_rng(0).normal(size=(5, 9, 4)).astype(np.float32)
        assert aggregate(logits, "vote").sum(axis=1) == pytest.approx(np.ones(5))
