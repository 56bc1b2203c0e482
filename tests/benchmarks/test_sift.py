"""The arithmetic of the benchmark of dense SIFT."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from scenetrack.descriptors.sift import SiftGrid

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def sift(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script as a module."""
    pytest.importorskip("resource", reason="the benchmarks measure memory as Unix tells it")
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("sift")
    for name in ("sift", "_machine"):
        sys.modules.pop(name, None)


def test_key_points_are_those_of_the_grid_in_its_order(sift: ModuleType) -> None:
    grid = SiftGrid(40, 6, (4, 9), "grey", 1.0)
    points = sift.key_points(grid)
    places = [((point.pt[1] + 0.5) / 40, (point.pt[0] + 0.5) / 40) for point in points]
    np.testing.assert_allclose(places, grid.positions, rtol=1e-6)
    assert (points[0].size, points[-1].size) == (pytest.approx(4 / 1.5), 6.0)


def test_directions_are_turned_and_go_before_columns(sift: ModuleType) -> None:
    found = np.zeros((1, 4, 4, 8), np.float32)
    found[0, 1, 2, 0] = 5  # to the right in both
    found[0, 3, 0, 2] = 7  # theirs up, which is the seventh of ours
    ours = sift.in_our_order(found.reshape(1, 128)).reshape(4, 8, 4)
    assert ours[1, 0, 2] == 5
    assert ours[3, 6, 0] == 7
    assert np.count_nonzero(ours) == 2


def test_agreement_is_of_squares_and_leaves_out_what_is_empty(sift: ModuleType) -> None:
    ours = np.array([[2, 1], [0, 0], [3, 0]], np.uint8)
    theirs = np.array([[4.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    mean, low = sift.agreement(ours, theirs)
    cosine = 1 / np.sqrt(2)
    assert mean == pytest.approx((1 + cosine) / 2)
    assert low == pytest.approx(cosine + 0.01 * (1 - cosine))


def test_opponent_planes_fill_the_bytes_and_grey_ones_stay(sift: ModuleType) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    planes = sift.planes_of(SiftGrid(8, 4, (2,), "opponent", 1.0), images)
    assert planes.shape == (2, 3, 8, 8)
    assert (planes.min(axis=(2, 3)) == 0).all()
    assert (planes.max(axis=(2, 3)) == 255).all()
    grey = sift.grey(images)
    planes = sift.planes_of(SiftGrid(8, 4, (2,), "grey", 1.0), grey)
    np.testing.assert_array_equal(planes[:, 0], grey[..., 1])


def test_a_row_holds_ours_against_opencv(sift: ModuleType) -> None:
    names = [sift._name(batch) for batch in sift.BATCHES]
    seconds = {sift.THEIRS: 0.9, **dict(zip(names, (0.09, 0.06, 0.1), strict=True))}
    row = sift.row(2, seconds, images=10)
    assert row["OpenCV, ms"] == "90.0"
    assert row["scenetrack, batch 2, ms"] == "6.00"
    assert row["times as fast, batch 1"] == "10.0"
    assert row["times as fast, best"] == "15.0"
