"""Slices of an epoch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenetrack.data.batches import batch_count, batch_slices


@pytest.mark.parametrize(
    ("count", "size", "lengths"),
    [
        (6, 2, [2, 2, 2]),
        (5, 2, [2, 3]),  # one alone has a variance of 0
        (7, 4, [4, 3]),
        (9, 4, [4, 5]),
        (1, 4, [1]),
        (3, 1, [1, 1, 1]),
        (0, 4, []),
    ],
)
def test_by_hand(count: int, size: int, lengths: list[int]) -> None:
    assert [part.stop - part.start for part in batch_slices(count, size)] == lengths


@given(st.integers(0, 200), st.integers(1, 20))
def test_every_sample_comes_once_and_none_alone(count: int, size: int) -> None:
    parts = list(batch_slices(count, size))
    assert [place for part in parts for place in range(part.start, part.stop)] == list(range(count))
    assert len(parts) == batch_count(count, size)
    if size > 1 and count > 1:
        assert min(part.stop - part.start for part in parts) > 1
