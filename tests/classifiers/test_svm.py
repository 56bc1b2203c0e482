"""Machines on mapped features: by hand, against two other solvers, and what always holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.svm import LinearSVC

from scenetrack.classifiers.svm import kernel_machines, mapped_machines


def blobs(count: int, width: int, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = np.arange(count) % classes
    rows = rng.standard_normal((classes, width))[targets] + rng.standard_normal((count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), targets


def objective(weights: np.ndarray, rows: np.ndarray, signs: np.ndarray, c: float) -> float:
    short = np.maximum(1 - signs * (rows @ weights[:-1] + weights[-1]), 0)
    return float(weights[:-1] @ weights[:-1] / 2 + c * short @ short)


@pytest.mark.parametrize("c", [0.1, 1.0, 25.0])
def test_two_points_by_hand(c: float) -> None:
    """w^2 / 2 + 2 C (1 - w)^2 is smallest at w = 4 C / (1 + 4 C), the intercept at 0."""
    found = mapped_machines(np.array([[-1.0], [1.0]], np.float32), np.array([0, 1]), c)
    w = 4 * c / (1 + 4 * c)
    np.testing.assert_allclose(found, [[-w, w], [0, 0]], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("c", [0.1, 1.0, 100.0])
def test_it_is_the_minimum_that_another_method_finds(c: float) -> None:
    rows, targets = blobs(90, 12)
    found = mapped_machines(rows, targets, c).astype(float)
    for label in range(3):
        signs = np.where(targets == label, 1.0, -1.0)
        best = minimize(
            objective, np.zeros(13), (rows.astype(float), signs, c), options={"gtol": 1e-6}
        )
        reached = objective(found[:, label], rows.astype(float), signs, c)
        assert best.fun * (1 - 1e-9) <= reached <= best.fun * (1 + 1e-3)


def test_scores_are_those_of_liblinear() -> None:
    rows, targets = blobs(200, 10)
    found = mapped_machines(rows, targets, 2.0)
    # Its penalty takes in the intercept, unless the feature that stands for it is large.
    theirs = LinearSVC(C=2.0, dual=False, intercept_scaling=100, tol=1e-8).fit(rows, targets)
    scores = rows @ found[:-1] + found[-1]
    np.testing.assert_allclose(scores, theirs.decision_function(rows), atol=5e-3)


def test_where_it_starts_changes_the_way_and_not_the_end() -> None:
    rows, targets = blobs(120, 30)
    cold = mapped_machines(rows, targets, 10.0)
    start = mapped_machines(rows, targets, 1.0)
    before = start.copy()
    warm = mapped_machines(rows, targets, 10.0, start)
    np.testing.assert_array_equal(start, before)
    np.testing.assert_allclose(rows @ (warm - cold)[:-1], 0, atol=0.05)
    np.testing.assert_array_equal(cold, mapped_machines(rows, targets, 10.0))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 3.0, 100.0]), st.integers(1, 40))
def test_no_random_direction_leads_lower(seed: int, c: float, width: int) -> None:
    rows, targets = blobs(40, width, seed=seed)
    found = mapped_machines(rows, targets, c).astype(float)
    rng = np.random.default_rng(seed)
    signs = np.where(targets == 0, 1.0, -1.0)
    reached = objective(found[:, 0], rows.astype(float), signs, c)
    scale = np.abs(found[:, 0]).max()
    for size in (1e-3, 1e-1):
        near = found[:, 0] + size * scale * rng.standard_normal(width + 1)
        assert objective(near, rows.astype(float), signs, c) > reached * (1 - 1e-3)


def test_rows_that_are_all_the_same_leave_the_intercept_alone() -> None:
    found = mapped_machines(np.zeros((6, 2), np.float32), np.array([0, 0, 0, 0, 1, 1]), 1.0)
    np.testing.assert_array_equal(found[:-1], 0)
    # 4 (1 - b)^2 + 2 (1 + b)^2 is smallest at b = 1 / 3.
    np.testing.assert_allclose(found[-1], [1 / 3, -1 / 3], rtol=1e-3)


def test_kernel_machines_by_hand() -> None:
    """Two points at -1 and 1: w = 1 with dual coefficients of 1/2, as C = 1 allows."""
    dual, intercept = kernel_machines(np.array([[1.0, -1.0], [-1.0, 1.0]]), np.array([0, 1]), 1.0)
    np.testing.assert_allclose(dual, [[0.5, -0.5], [-0.5, 0.5]], atol=1e-3)
    np.testing.assert_allclose(intercept, 0, atol=1e-3)
