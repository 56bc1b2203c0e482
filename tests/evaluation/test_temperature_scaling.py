"""Probabilities: by hand, against a search, and what always holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_pipelines import svm

from scenetrack.classifiers import out_of_fold_scores, refit
from scenetrack.errors import ScenetrackError
from scenetrack.evaluation.temperature_scaling import (
    COLDEST,
    HOTTEST,
    fit_temperature,
    log_loss,
    softmax,
)


def drawn(count: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and labels drawn with the probabilities that they have at ``temperature``."""
    rng = np.random.default_rng(seed)
    scores = 3 * rng.standard_normal((count, 4))
    labels = (rng.random((count, 1)) > softmax(scores, temperature).cumsum(axis=1)).sum(axis=1)
    return scores, np.minimum(labels, 3)


def test_softmax_by_hand() -> None:
    scores = np.log([[1.0, 3.0], [2.0, 2.0]])
    np.testing.assert_allclose(softmax(scores), [[0.25, 0.75], [0.5, 0.5]])
    np.testing.assert_allclose(softmax(scores, 0.5), [[0.1, 0.9], [0.5, 0.5]])


def test_softmax_of_large_scores_is_finite() -> None:
    np.testing.assert_array_equal(softmax(np.array([[1e6, -1e6]]), 1e-3), [[1, 0]])


def test_log_loss_by_hand() -> None:
    probabilities = np.array([[0.5, 0.5], [0.75, 0.25]])
    assert log_loss(probabilities, np.array([0, 1])) == pytest.approx(np.log([2, 4]).mean())
    assert np.isfinite(log_loss(np.array([[1.0, 0.0]]), np.array([1])))


@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
def test_the_temperature_that_drew_the_labels_is_found(temperature: float) -> None:
    scores, labels = drawn(20_000, temperature)
    assert fit_temperature(scores, labels) == pytest.approx(temperature, rel=0.05)


def test_it_is_the_best_of_a_grid() -> None:
    """But for the one image more of no known class, the minimum of the loss."""
    scores, labels = drawn(300, 1.7)

    def loss(temperature: float) -> float:
        shares = softmax(scores, temperature)
        extra = -np.log(shares).mean()
        return len(labels) * log_loss(shares, labels) + float(extra)

    grid = np.geomspace(0.1, 20, 4001)
    best = grid[np.argmin([loss(value) for value in grid])]
    assert fit_temperature(scores, labels) == pytest.approx(best, rel=2e-3)


def test_scores_without_an_error_do_not_claim_certainty() -> None:
    scores = np.array([[1.0, -1.0], [-1.0, 1.0]] * 10)
    labels = np.array([0, 1] * 10)
    # 20.5 of 21 images are right: log-odds 2 / T = log(20.5 / 0.5).
    assert fit_temperature(scores, labels) == pytest.approx(2 / np.log(41), rel=1e-6)


def test_scores_that_say_nothing_are_not_believed() -> None:
    wrong = np.array([[1.0, -1.0]] * 9 + [[-1.0, 1.0]] * 9)
    assert fit_temperature(wrong, np.array([1] * 9 + [0] * 9)) == pytest.approx(HOTTEST)
    assert COLDEST <= fit_temperature(np.zeros((3, 2)), np.array([0, 1, 1])) <= HOTTEST


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 1.0, 30.0]))
def test_scaled_scores_give_the_same_probabilities(seed: int, scale: float) -> None:
    scores, labels = drawn(200, 1.0, seed)
    once = softmax(scores, fit_temperature(scores, labels))
    scaled = softmax(scale * scores, fit_temperature(scale * scores, labels))
    np.testing.assert_allclose(scaled, once, atol=1e-6)
    np.testing.assert_array_equal(once.argmax(axis=1), scores.argmax(axis=1))


def test_no_image_scores_itself() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    features = rng.dirichlet(np.ones(8), 30).astype(np.float32)
    fitted = svm(features, labels, "rbf", preparation="square_root", c=100.0)
    out = out_of_fold_scores(fitted, features, labels, 5, seed=0)
    own = fitted.predict(features)
    assert out.shape == (30, 3)
    # The labels have nothing to do with the features: only memory gets them right.
    assert np.mean(own == labels) > 0.9
    assert np.mean(out.argmax(axis=1) == labels) < 0.7


def test_out_of_fold_scores_are_those_of_leaving_each_out() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0, 1, 2] * 2)
    features = rng.dirichlet(np.ones(5), 6).astype(np.float32)
    fitted = svm(features, labels, "chi2", preparation="square_root")
    # Two images of a class leave two folds, whatever was asked for.
    out = out_of_fold_scores(fitted, features, labels, 5, seed=3)
    choices = [[i, j, k] for i in (0, 3) for j in (1, 4) for k in (2, 5)]
    parts = []
    for held in choices:
        part = refit(fitted, np.delete(features, held, 0), np.delete(labels, held))
        parts.append(np.allclose(out[held], part.predict_scores(features[held])))
    assert sum(parts) == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_calibrate_nothing(bad: float) -> None:
    scores = np.eye(3)
    scores[1, 2] = bad
    with pytest.raises(ScenetrackError, match="every score must be a finite number"):
        fit_temperature(scores, np.arange(3))
