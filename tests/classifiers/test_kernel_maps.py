"""Explicit kernel maps: landmarks, their inner products, and classifiers of many images."""

from __future__ import annotations

import logging
import tracemalloc

import numpy as np
import pytest
from small_pipelines import svm

from scenetrack.classifiers import (
    FittedClassifier,
    cross_validation,
    fit_by_cross_validation,
    grid_search,
    out_of_fold_scores,
    refit,
)
from scenetrack.classifiers import kernel_maps as maps
from scenetrack.classifiers.feature_rows import Rows
from scenetrack.classifiers.kernel_maps import as_landmarks, draw_landmarks, mapped, whitening
from scenetrack.classifiers.kernels import compare, kernel_matrix
from scenetrack.classifiers.svm import mapped_machines
from scenetrack.config import KERNELS

MANY, FEW_LANDMARKS = 120, 40


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """MANY images count as many, and FEW_LANDMARKS stand for them."""
    monkeypatch.setattr(cross_validation, "MAPPED_FROM", MANY)
    monkeypatch.setattr(maps, "LANDMARKS", FEW_LANDMARKS)


def histograms(count: int, words: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    profiles, labels = np.random.default_rng(9).dirichlet(np.ones(words), 3), np.arange(count) % 3
    counts = np.stack([rng.multinomial(40, profiles[label]) for label in labels])
    return (counts / 40).astype(np.float32), labels


def fit(features: np.ndarray, labels: np.ndarray, kernel: str, seed: int = 0) -> FittedClassifier:
    return fit_by_cross_validation(
        features, labels, kernel, preparation="square_root", folds=3, seed=seed
    )


def test_every_class_gives_its_share_of_landmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "LANDMARKS", 20)
    targets = np.repeat([0, 1, 2], [50, 49, 1])
    drawn = draw_landmarks(targets, seed=0)
    assert np.bincount(targets[drawn]).tolist() == [10, 9, 1]
    assert (np.diff(drawn) > 0).all()
    np.testing.assert_array_equal(drawn, draw_landmarks(targets, seed=0))
    assert not np.array_equal(drawn, draw_landmarks(targets, seed=1))


def test_fewer_images_than_landmarks_are_all_landmarks() -> None:
    np.testing.assert_array_equal(draw_landmarks(np.array([0, 1, 1, 0]), seed=3), np.arange(4))


@pytest.mark.parametrize("kernel", KERNELS)
def test_inner_products_of_mapped_landmarks_are_the_kernel(kernel: str) -> None:
    rows = as_landmarks(Rows(histograms(30)[0]))
    compared = compare(rows, rows, kernel)
    matrix = kernel_matrix(compared, kernel, 0.7)
    found = mapped(compared, kernel, 0.7, whitening(matrix)).astype(float)
    np.testing.assert_allclose(found @ found.T, matrix, atol=1e-4)
    # Along the principal axes: no column has to do with another one.
    products = found.T @ found
    np.testing.assert_allclose(products - np.diag(np.diag(products)), 0, atol=1e-4)


def test_mapping_by_hand() -> None:
    """Two equal landmarks of length 1 and a row at half of it: one axis, and 1/2 on it."""
    matrix = np.ones((2, 2))
    found = mapped(np.array([[0.5, 0.5]]), "linear", 0.0, whitening(matrix))
    np.testing.assert_allclose(np.sort(np.abs(found)), [[0, 0.5]], atol=1e-4)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("kernel", KERNELS)
def test_many_images_are_classified_by_landmarks(
    kernel: str, caplog: pytest.LogCaptureFixture
) -> None:
    features, labels = histograms(MANY)
    with caplog.at_level(logging.INFO, logger="scenetrack.classifiers"):
        found = fit(features, labels, kernel)
    assert (
        f"{MANY} images are many: the {kernel} kernel is approximated by 40 landmarks"
        in caplog.text
    )
    assert found.explicit_map
    assert found.provenance["kernel_map"] == "landmarks"
    assert found.support.shape == (3 if kernel == "linear" else FEW_LANDMARKS, features.shape[1])
    assert found.support.dtype == np.float32
    new, new_labels = histograms(90, seed=1)
    exact = svm(features, labels, kernel, preparation="square_root")
    assert found.cv_accuracy > 0.8
    assert (
        np.mean(found.predict(new) == new_labels)
        >= np.mean(exact.predict(new) == new_labels) - 0.05
    )


@pytest.mark.usefixtures("few")
def test_fewer_images_are_compared_exactly(caplog: pytest.LogCaptureFixture) -> None:
    features, labels = histograms(MANY)
    with caplog.at_level(logging.INFO, logger="scenetrack.classifiers"):
        found = fit(features[1:], labels[1:], "chi2")
    assert not found.explicit_map
    assert found.provenance["kernel_map"] == "none"
    assert "landmarks" not in caplog.text


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("kernel", KERNELS)
def test_scores_are_those_of_the_mapped_machines(kernel: str) -> None:
    """The dual form that is saved against the inner products in the mapped space."""
    features, labels = histograms(MANY)
    found = fit(features, labels, kernel)
    rows = Rows(features, found.preparation)
    landmarks = as_landmarks(rows.like(features[draw_landmarks(labels, seed=0)]))
    between = kernel_matrix(compare(landmarks, landmarks, kernel), kernel, found.gamma)
    places = mapped(compare(rows, landmarks, kernel), kernel, found.gamma, whitening(between))
    weights = mapped_machines(places, labels, found.C)
    expected = places @ weights[:-1] + weights[-1]
    np.testing.assert_allclose(found.predict_scores(features), expected, atol=1e-3)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("kernel", ["rbf", "intersection"])
def test_the_same_seed_gives_the_same_map(kernel: str) -> None:
    features, labels = histograms(MANY)
    first, second = (fit(features, labels, kernel, seed=4).to_arrays() for _ in range(2))
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)
    other = fit(features, labels, kernel, seed=5)
    assert not np.array_equal(other.support, first["support"])


@pytest.mark.usefixtures("few")
def test_landmarks_held_out_have_no_part_in_their_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = histograms(MANY)
    seen = []

    def spied(matrix: np.ndarray) -> np.ndarray:
        seen.append(len(matrix))
        return whitening(matrix)

    monkeypatch.setattr(grid_search, "whitening", spied)
    fit(features, labels, "linear")
    # Each landmark is held out in one of the three folds.
    assert len(seen) == 3
    assert sum(seen) == 2 * FEW_LANDMARKS


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("kernel", KERNELS)
def test_plain_descriptors_have_standards_of_their_fold(kernel: str) -> None:
    features, labels = histograms(MANY)
    found = fit_by_cross_validation(
        1000 * features, labels, kernel, preparation="standardise", folds=3, seed=0
    )
    assert found.cv_accuracy > 0.7
    again = refit(found, 1000 * features, labels)
    np.testing.assert_array_equal(
        again.predict_scores(1000 * features), found.predict_scores(1000 * features)
    )


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("kernel", ["linear", "chi2"])
def test_fewer_images_left_are_still_mapped(kernel: str) -> None:
    """Settings found for a map are not those of the exact kernel."""
    features, labels = histograms(MANY)
    found = fit(features, labels, kernel)
    part = refit(found, features[:90], labels[:90])
    assert part.explicit_map
    out = out_of_fold_scores(found, features, labels, 3, seed=0)
    assert np.mean(out.argmax(axis=1) == labels) == pytest.approx(found.cv_accuracy, abs=0.06)


@pytest.mark.parametrize("kernel", KERNELS)
def test_memory_does_not_grow_with_the_square(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """12,000 images: the kernel's matrix of all of them alone would have 1,152 MB."""
    monkeypatch.setattr(maps, "LANDMARKS", 100)
    monkeypatch.setattr(grid_search, "C_GRID", (1.0,))
    monkeypatch.setattr(grid_search, "GAMMA_FACTORS", (1.0,))
    features, labels = histograms(12_000, words=8)
    tracemalloc.start()
    try:
        found = fit(features, labels, kernel)
        out = out_of_fold_scores(found, features, labels, 3, seed=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.explicit_map
    assert peak < 100e6
    assert np.mean(out.argmax(axis=1) == labels) > 0.8


def test_wide_features_are_never_copied_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 rows of 84,480 values, as Fisher vectors with a pyramid have, are 203 MB in float64."""
    monkeypatch.setattr(grid_search, "C_GRID", (1.0,))
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    features = rng.standard_normal((300, 84_480), np.float32)
    features[:, :3] += 60 * np.eye(3, dtype=np.float32)[labels]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    tracemalloc.start()
    try:
        found = fit_by_cross_validation(
            features, labels, "linear", preparation="none", folds=3, seed=0
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 150e6
    assert found.cv_accuracy == 1
    assert found.support.dtype == np.float32
