"""Features made ready a part at a time: by hand, and the same whatever the parts are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenetrack.classifiers import feature_rows as features
from scenetrack.classifiers.feature_rows import (
    PREPARATIONS,
    Rows,
    checked_features,
    column_parts,
    parts,
)
from scenetrack.errors import InputError

ALL = slice(None)


def test_preparations_by_hand() -> None:
    values = np.array([[0.25, 4.0], [0.25, 0.0], [0.25, 2.0]], np.float32)
    np.testing.assert_array_equal(Rows(values).ready(ALL), values)
    rooted = Rows(values, "square_root").ready(slice(0, 2))
    np.testing.assert_array_equal(rooted, [[0.5, 2.0], [0.5, 0.0]])
    # The first column never changes: its deviation counts as 1. The second one's is sqrt(8 / 3).
    scaled = Rows.standardised(values, "standardise").ready(ALL)
    expected = np.array([[0, 2], [0, -2], [0, 0]]) / np.sqrt(8 / 3) / np.sqrt(2)
    np.testing.assert_allclose(scaled, expected, atol=1e-15)


@pytest.mark.parametrize("preparation", PREPARATIONS)
def test_float32_stays_as_it_came(preparation: str) -> None:
    values = np.ones((4, 3), np.float32)
    rows = Rows.standardised(checked_features(values), preparation)
    assert np.shares_memory(rows.values, values)
    assert rows.ready(slice(1, 3)).dtype == np.float64


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 12),
    st.integers(1, 9),
    st.integers(1, 600),
    st.sampled_from(PREPARATIONS),
)
def test_parts_make_the_whole(
    seed: int, count: int, width: int, part_bytes: int, preparation: str
) -> None:
    values = np.random.default_rng(seed).random((count, width)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        whole = Rows.standardised(values, preparation)
        patch.setattr(features, "_PART_BYTES", part_bytes)
        rows = Rows.standardised(values, preparation)
        # Sums of a single column are added up in another order.
        np.testing.assert_allclose(rows.scale, whole.scale, rtol=1e-12)
        by_rows = [ready for _, ready in rows.row_parts()]
        by_columns = [ready for ready, _ in column_parts(rows, rows)]
    expected = whole.ready(ALL)
    np.testing.assert_allclose(np.concatenate(by_rows), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.concatenate(by_columns, axis=1), expected, rtol=1e-9, atol=1e-9)


def test_columns_of_two_sides_are_the_same_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_PART_BYTES", 8 * 5 * 2)
    left, right = np.arange(8.0).reshape(2, 4), np.arange(12.0).reshape(3, 4)
    pairs = list(column_parts(Rows(left), Rows(right)))
    assert [(one.shape, two.shape) for one, two in pairs] == [((2, 2), (3, 2))] * 2
    np.testing.assert_array_equal(sum(one @ two.T for one, two in pairs), left @ right.T)


def test_parts_by_hand() -> None:
    assert list(parts(5, 2)) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert list(parts(2, 0)) == [slice(0, 1), slice(1, 2)]
    assert list(parts(0, 3)) == []


def test_one_value_that_is_no_number_is_found_in_any_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_PART_BYTES", 8 * 3 * 2)
    values = np.ones((7, 3), np.float32)
    checked_features(values)
    values[6, 2] = np.inf
    with pytest.raises(InputError, match="NaN or infinity"):
        checked_features(values)
