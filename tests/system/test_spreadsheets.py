"""Cells of CSV files: no formula, and the same text when it is read again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenetrack.system.spreadsheets import guarded, unguarded

STARTS = [
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "'",
    "\uff1d",
    "\uff0b",
    "\uff0d",
    "\uff20",
    "a",
    "1",
]


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+a", "-a", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1", "-2+3", "+1|x", "-inf", "'=1"],
)
def test_formulas_get_an_apostrophe(text: str) -> None:
    assert guarded(text) == f"'{text}"


@pytest.mark.parametrize(
    "cell", ["coast", "a=1", "'a", "", "-1", "+0.5", "-1.5e-07", -1.5, 3, None]
)
def test_other_cells_stay(cell: object) -> None:
    assert guarded(cell) is cell


@given(st.lists(st.sampled_from(STARTS)).map("".join))
def test_read_again(text: str) -> None:
    assert unguarded(str(guarded(text))) == text


def test_texts_of_older_files_are_read_as_they_are() -> None:
    for text in ("=1+1", "'a", "coast", "-1", "'-1"):
        assert unguarded(text) == text
