"""Methods side by side, with p values that can be counted by hand."""

from __future__ import annotations

import re

import numpy as np
import pytest

from scenetrack.errors import ScenetrackError
from scenetrack.evaluation import (
    Evaluation,
    comparison_records,
    comparison_table,
    comparison_text,
    evaluate,
    pairs_table,
    pairs_text,
    wilson_interval,
)
from scenetrack.records import Figure, Table

NAMES = ("coast", "forest", "street")


def three_methods() -> dict[str, Evaluation]:
    labels = np.zeros(12, dtype=np.int64)
    return {
        "end to end": evaluate(labels, np.array([0] * 6 + [1] * 6), NAMES),
        "worse": evaluate(labels, np.array([0] * 3 + [1] * 9), NAMES),
        "best": evaluate(labels, np.zeros(12, dtype=np.int64), NAMES),
    }


def test_comparison_is_best_first_with_p_against_the_first() -> None:
    table = comparison_table(three_methods())
    assert [row[0] for row in table.rows] == ["best", "end to end", "worse"]
    assert table.columns[-2:] == ("p against end to end", "p_holm")
    # 2 / 2**6, none against itself, 2 / 2**3; the smaller of two counts twice.
    assert [row[-2:] for row in table.rows] == [(1 / 32, 1 / 16), (None, None), (1 / 4, 1 / 4)]
    low, high = wilson_interval(3, 12)
    assert table.rows[2][1:4] == (0.25, low, high)
    assert comparison_table(three_methods(), "best").rows[0][-1] is None


def test_all_pairs_are_adjusted_together() -> None:
    table = pairs_table(three_methods())
    # Discordant images 6, 9 and 3, all on one side: p = 2 / 2**n, times 2, 3 and 1.
    assert [tuple(row) for row in table.rows] == [
        ("best", "end to end", 6, 0, 2 / 2**6, 2 * 2 / 2**6),
        ("best", "worse", 9, 0, 2 / 2**9, 3 * 2 / 2**9),
        ("end to end", "worse", 3, 0, 2 / 2**3, 2 / 2**3),
    ]
    alone = {"end to end": three_methods()["end to end"]}
    assert pairs_table(alone).rows == []


def test_comparison_text_is_aligned() -> None:
    lines = comparison_text(three_methods()).splitlines()
    assert re.split("  +", lines[0]) == [
        *("method", "accuracy", "95% interval", "macro F1", "ECE"),
        "Holm's p against end to end",
    ]
    assert [line.split()[0] for line in lines[2:5]] == ["best", "end", "worse"]
    assert lines[2].endswith("0.0625")
    assert len({line.index("%") for line in lines[3:5]}) == 1
    assert max(map(len, lines[:5])) == len(lines[1])
    assert lines[5].endswith("adjusted by Holm for 2 tests")
    assert "--repeats" in lines[6]


def test_text_of_one_method_tells_of_no_test() -> None:
    alone = {"MLP": three_methods()["best"]}
    assert len(comparison_text(alone).splitlines()) == 3
    assert len(pairs_text(alone).splitlines()) == 3


def test_pairs_text_is_a_table_and_a_triangle() -> None:
    lines = pairs_text(three_methods()).splitlines()
    assert [line[:3] for line in lines[2:5]] == ["1  ", "2  ", "3  "]
    assert lines[6].endswith("adjusted by Holm for 3 in all")
    assert [line.split() for line in lines[7:10]] == [
        ["1", "2"],
        ["2", "0.0625"],
        ["3", "0.0117", "0.2500"],
    ]


def test_probabilities_show_as_calibration_error() -> None:
    labels = np.zeros(4, dtype=np.int64)
    shares = np.tile([0.75, 0.25, 0.0], (4, 1))
    table = comparison_table({"sure": evaluate(labels, labels, NAMES, shares)})
    assert table.columns[5] == "ece"
    assert table.rows[0][5] == 0.25
    assert comparison_table(three_methods()).rows[0][5] is None


def test_comparison_records_are_tables_and_a_figure() -> None:
    table, pairs, figure = comparison_records(three_methods(), title="All")
    assert isinstance(table, Table)
    assert isinstance(pairs, Table)
    assert (table.name, pairs.name) == ("comparison.json", "mcnemar_pairs.json")
    assert isinstance(figure, Figure)


def test_methods_on_different_images_are_not_compared() -> None:
    others = evaluate(np.array([1, 2]), np.array([1, 2]), NAMES)
    with pytest.raises(ScenetrackError, match="same images, but 'other'"):
        comparison_table({**three_methods(), "other": others})
