"""Cells of regions, sums by group, and normalisation: by hand, and against plain sums."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scenetrack.encoders.normalisation import signed_power, unit_length
from scenetrack.encoders.region_partition import cells_of, sums_by_group


def test_cells_by_hand():
    regions = np.array(
        [
            [1, 1, 1, 1, 0],  # all but the last
            [1, 0, 0, 1, 0],
            [0, 1, 1, 0, 0],
        ],
        bool,
    )
    cells = cells_of(regions)
    groups = np.split(cells.order, np.cumsum(cells.sizes)[:-1])
    assert sorted(group.tolist() for group in groups) == [[0, 3], [1, 2]]
    assert cells.members.sum(axis=1).tolist() == [2, 1, 1]
    assert cells.firsts(10).tolist() == [0, 0, 10, 10]


def test_a_pyramid_of_five_regions_has_four_cells():
    quarter = np.repeat(np.arange(4), 6)
    regions = np.concatenate([np.ones((1, 24), bool), quarter == np.arange(4)[:, None]])
    assert cells_of(regions).sizes.tolist() == [6, 6, 6, 6]


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 30))))
def test_sums_of_cells_are_sums_of_regions(regions):
    rows = np.random.default_rng(0).integers(-9, 9, (regions.shape[1], 2)).astype(float)
    cells = cells_of(regions)
    assert cells.sizes.sum() == len(cells.order) == regions.any(axis=0).sum()
    groups = cells.firsts(1)
    sums = sums_by_group(rows[cells.order], groups, len(cells.sizes))
    np.testing.assert_array_equal(cells.total(sums), regions @ rows)


def test_sums_by_group_by_hand():
    rows = np.array([[1.0, 2], [3, 4], [5, 6]])
    found = sums_by_group(rows, np.array([2, 0, 2]), 4)
    np.testing.assert_array_equal(found, [[3, 4], [0, 0], [6, 8], [0, 0]])


def test_normalisation_by_hand():
    np.testing.assert_array_equal(signed_power(np.array([-4.0, 0, 9]), 0.5), [-2, 0, 3])
    np.testing.assert_array_equal(unit_length(np.array([[3.0, 4], [0, 0]])), [[0.6, 0.8], [0, 0]])


@pytest.mark.parametrize("scale", [1e-100, 1.0, 1e100])
def test_length_is_one_at_any_scale(scale):
    values = scale * np.random.default_rng(0).standard_normal((5, 7))
    np.testing.assert_allclose(np.linalg.norm(unit_length(values), axis=1), 1, rtol=1e-12)
