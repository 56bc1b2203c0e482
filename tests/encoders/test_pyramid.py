"""Spatial pyramids: which cell a descriptor is in, and how regions are joined."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenetrack.encoders import BagOfWords, SpatialPyramid
from scenetrack.encoders.pyramid import cells, parse_level
from scenetrack.errors import InputError

CORNERS = np.array([[0.1, 0.1], [0.1, 0.9], [0.9, 0.1], [0.9, 0.9]], np.float32)
ROWS = np.array([[0], [1], [1], [1]], np.float32)


def two_words(normalisation="l1"):
    bow = BagOfWords(2, normalisation=normalisation)
    bow.codebook_ = np.array([[0], [1]], np.float32)
    return bow


@pytest.mark.parametrize(
    ("level", "shape"), [("1x1", (1, 1)), ("3x1", (3, 1)), ("16x99", (16, 99))]
)
def test_levels_are_rows_by_columns(level, shape):
    assert parse_level(level) == shape


@pytest.mark.parametrize("level", ["", "2", "0x1", "1x0", "2x", "2X2", "-1x1", "1x1x1", "100x1"])
def test_levels_that_cannot_be_read(level):
    with pytest.raises(InputError, match="a level of a pyramid must be ROWSxCOLUMNS"):
        parse_level(level)


def test_cells_by_hand():
    found = cells(("1x1", "2x2", "2x1"), CORNERS)
    expected = [[1, 1, 1, 1], *np.eye(4), [1, 1, 0, 0], [0, 0, 1, 1]]
    np.testing.assert_array_equal(found, np.array(expected, np.bool_))


def test_on_the_line_and_at_the_end():
    positions = np.array([[0, 0], [0.5, 0], [0.5, 0.5], [1, 1]], np.float32)
    np.testing.assert_array_equal(cells(("2x2",), positions).argmax(axis=0), [0, 2, 3, 3])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
def test_every_descriptor_is_in_one_cell_of_a_level(seed, rows, columns):
    positions = np.random.default_rng(seed).random((30, 2), np.float32)
    found = cells((f"{rows}x{columns}",), positions)
    assert found.shape == (rows * columns, 30)
    np.testing.assert_array_equal(found.sum(axis=0), 1)


@pytest.mark.parametrize(
    "positions", [np.zeros(3), np.zeros((3, 3)), [[0.5, 1.5]], [[np.nan, 0]], [[-0.1, 0]]]
)
def test_positions_outside_the_image_are_refused(positions):
    with pytest.raises(InputError, match=r"positions must be an array \[n, 2\]"):
        cells(("1x1",), np.asarray(positions, np.float32))


def test_no_levels():
    with pytest.raises(InputError, match="at least one level"):
        cells((), CORNERS)


def test_histograms_by_hand():
    """Five regions, a fifth each: the whole image is 1/4 and 3/4, a corner is one or the other."""
    pyramid = SpatialPyramid(two_words(), ("1x1", "2x2"), CORNERS)
    expected = np.array([0.25, 0.75, 1, 0, 0, 1, 0, 1, 0, 1]) / 5
    np.testing.assert_allclose(pyramid.transform(ROWS[None]), [expected], rtol=1e-6)
    assert pyramid.width == 10


def test_vectors_of_length_one_stay_so():
    pyramid = SpatialPyramid(two_words("hellinger"), ("1x1", "2x2"), CORNERS)
    (found,) = pyramid.transform(ROWS[None])
    np.testing.assert_allclose(found[:2], np.sqrt([0.25, 0.75]) / np.sqrt(5), rtol=1e-6)
    assert np.linalg.norm(found) == pytest.approx(1)


def test_a_cell_without_positions_takes_no_share():
    """All descriptors in the upper half: the lower one is zero and the rest still sums to 1."""
    positions = CORNERS * np.array([0.4, 1], np.float32)
    (found,) = SpatialPyramid(two_words(), ("1x1", "2x1"), positions).transform(ROWS[None])
    np.testing.assert_allclose(found, [0.125, 0.375, 0.125, 0.375, 0, 0])


def test_descriptors_are_looked_at_once(monkeypatch):
    seen = []
    pool = BagOfWords.pool
    monkeypatch.setattr(
        BagOfWords,
        "pool",
        lambda self, rows, regions: seen.append(rows) or pool(self, rows, regions),
    )
    SpatialPyramid(two_words(), ("1x1", "2x2", "3x1"), CORNERS).transform(ROWS[None])
    assert len(seen) == 1


def test_fit_fits_the_encoder():
    rows = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    pyramid = SpatialPyramid(BagOfWords(4), ("1x1",), CORNERS).fit(rows)
    np.testing.assert_array_equal(pyramid.encoder.codebook_, BagOfWords(4).fit(rows).codebook_)
