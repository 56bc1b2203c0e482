"""Local descriptors through ONNX Runtime against Keras, and scores of images from patches."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenetrack.config import AGGREGATIONS, PatchBowConfig
from scenetrack.data.patches import PatchGrid
from scenetrack.descriptors import extraction
from scenetrack.descriptors.aggregation import aggregate
from scenetrack.descriptors.extraction import DescriptorExtractor, LocalDescriptors
from scenetrack.export.dense import Dense
from scenetrack.export.truncate import export_truncated
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.networks.registry import build_network


@pytest.fixture(scope="module")
def network() -> keras.Model:
    config = PatchBowConfig(image_size=16, patch_size=6, whitening=10, hidden=(9, 5), epochs=1)
    model = build_network(config, 3)
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


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCENETRACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SCENETRACK_CACHE_SIZE", "1GB")


@pytest.fixture
def extractor(onnx: OnnxModel) -> DescriptorExtractor:
    return DescriptorExtractor(onnx, "digest", PatchGrid(16, 6, 3).centres)


@pytest.mark.parametrize("at_once", [1, 20, 40, 10**6])
def test_describe_is_direct_prediction_patch_by_patch(
    network: keras.Model,
    extractor: DescriptorExtractor,
    images: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
) -> None:
    monkeypatch.setattr(extraction, "PATCHES_AT_ONCE", at_once)
    local = extractor.describe(images, {"split": "train"}, "describing")
    assert (local.values.shape, local.logits.shape) == ((7, 16, 5), (7, 16, 3))
    assert local.values.dtype == local.logits.dtype == np.float32
    assert extractor.described == 7
    assert extractor.images_per_second == pytest.approx(7 / extractor.seconds)
    for position, (y, x) in enumerate(PatchGrid(16, 6, 3).positions):
        patch = images[:, y : y + 6, x : x + 6]
        expected_values, expected_logits = keras_outputs(network, patch)
        assert local.values[:, position] == pytest.approx(expected_values, abs=1e-4)
        assert local.logits[:, position] == pytest.approx(expected_logits, abs=1e-4)
    parts = list(local.batches("encoding"))
    most = max(1, at_once // 16)
    assert [at.stop - at.start for at, _ in parts[:-1]] == [most] * (len(parts) - 1)
    assert np.array_equal(np.concatenate([part.values for _, part in parts]), local.values)


def test_descriptors_are_computed_once_for_a_model_and_its_images(
    onnx: OnnxModel, images: np.ndarray
) -> None:
    def describe(digest: str, split: str) -> tuple[DescriptorExtractor, LocalDescriptors]:
        extractor = DescriptorExtractor(onnx, digest, PatchGrid(16, 6, 3).centres)
        return extractor, extractor.describe(images, {"split": split}, "describing")

    first, made = describe("one", "train")
    again, found = describe("one", "train")
    assert (first.described, again.described) == (7, 0)
    assert again.images_per_second == 0
    assert np.array_equal(made.values, found.values)
    assert np.array_equal(made.logits, found.logits)
    assert describe("one", "test")[0].described == 7
    assert describe("other", "train")[0].described == 7


def test_sample_draws_descriptors_and_says_where_they_were() -> None:
    values = np.arange(5 * 4 * 2, dtype=np.float32).reshape(5, 4, 2)
    local = LocalDescriptors(values, np.zeros((5, 4, 0), np.float32))
    drawn, places = local.sample(400, seed=3, owners=np.array([1, 4]))
    owners, remainder = np.divmod(drawn[:, 0] / 2, 4)
    assert set(owners) == {1, 4}
    assert np.array_equal(remainder, places)
    assert set(places) == {0, 1, 2, 3}
    again, _ = local.sample(400, seed=3, owners=np.array([1, 4]))
    assert np.array_equal(drawn, again)
    assert set(local.sample(400, seed=3)[0][:, 0] // 8) == set(range(5))


def test_a_sample_is_never_larger_than_what_there_is() -> None:
    values = np.arange(3 * 2 * 1, dtype=np.float32).reshape(3, 2, 1)
    local = LocalDescriptors(values, np.zeros((3, 2, 0), np.float32))
    drawn, places = local.sample(100, seed=0, owners=np.array([0, 2]))
    assert drawn[:, 0].tolist() == [0, 1, 4, 5]
    assert places.tolist() == [0, 1, 0, 1]


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
        assert scores.dtype == np.float64
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


def test_the_mean_over_many_patches_is_exact() -> None:
    # Added up in float32 one after another this is 1e-4 off.
    logits = np.random.default_rng(0).normal(5, 1, (1, 60_000, 3)).astype(np.float32)
    exact = logits.astype(np.float64).mean(axis=1)
    np.testing.assert_allclose(aggregate(logits, "mean"), exact, rtol=1e-12)
