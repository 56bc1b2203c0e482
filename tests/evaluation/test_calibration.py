"""Expected calibration error: by hand, at the edges of bins, and against a loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenetrack.evaluation import reliability

reported = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50)


def test_calibration_error_by_hand() -> None:
    # Bins of a half: 0.2 (wrong) and 0.4 (right), 0.9 (right), 0.8 (wrong) and 1.0 (right).
    found = reliability(np.array([0.2, 0.9, 0.4, 0.8, 1.0]), np.array([0, 1, 1, 0, 1]) > 0, bins=2)
    assert found.counts.tolist() == [2, 3]
    assert found.confidence == pytest.approx([0.3, 0.9])
    assert found.accuracy == pytest.approx([0.5, 2 / 3])
    assert found.ece == pytest.approx((2 * 0.2 + 3 * (0.9 - 2 / 3)) / 5)


def test_an_edge_belongs_to_the_bin_below() -> None:
    edges = np.arange(16) / 15
    counts = reliability(edges, edges > 0).counts
    assert counts.tolist() == [2] + [1] * 14


def test_certain_and_right_or_wrong() -> None:
    sure = np.ones(4)
    assert reliability(sure, sure > 0).ece == 0
    assert reliability(sure, sure < 0).ece == 1


@given(reported, st.integers(1, 20))
def test_calibration_error_is_that_of_the_definition(
    images: list[tuple[float, bool]], bins: int
) -> None:
    expected = 0.0
    for k in range(bins):
        inside = [(c, r) for c, r in images if (k / bins < c or k == 0) and c <= (k + 1) / bins]
        if inside:
            confidence, right = np.transpose(inside)
            expected += len(inside) / len(images) * abs(right.mean() - confidence.mean())
    confidence, right = (np.array(column) for column in zip(*images, strict=True))
    found = reliability(confidence, right, bins)
    assert found.ece == pytest.approx(expected, abs=1e-12)
    assert found.counts.sum() == len(images)
    assert not math.isnan(found.ece)


def test_perfect_probabilities_of_many_images_have_nearly_none() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(200_000)
    right = rng.random(200_000) < confidence
    assert reliability(confidence, right).ece < 0.01
    assert reliability(confidence**2, right).ece > 0.1
