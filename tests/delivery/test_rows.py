"""Rows as CSV and JSON lines: what goes in comes out, whatever the names are."""

from __future__ import annotations

import csv
import io
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenetrack.delivery.rows import (
    Row,
    as_csv,
    as_jsonl,
    columns,
    from_json,
    make_rows,
)
from scenetrack.system.spreadsheets import unguarded
from scenetrack.system.terminal import HIDDEN

ROW = Row("a.jpg", (("coast", 0.75), ("street", 0.25)))

paths = st.binary(min_size=1).map(lambda b: os.fsdecode(b.replace(b"\0", b"") or b"x"))
labels = st.text(st.characters(codec="utf-8"), min_size=1)
tops = st.lists(st.tuples(labels, st.floats(0, 1)), min_size=1, max_size=3).map(tuple)
rows = st.one_of(
    st.builds(Row, path=paths, top=tops), st.builds(Row, path=paths, error=st.just("truncated"))
)


def test_csv_by_hand() -> None:
    lines = b"".join(as_csv([ROW, Row("b,c.jpg", error='no "image"')], 2, header=True))
    assert lines.decode() == (
        "path,label,probability,label_2,probability_2,error\n"
        "a.jpg,coast,0.75,street,0.25,\n"
        '"b,c.jpg",,,,,"no ""image"""\n'
    )


def test_jsonl_by_hand() -> None:
    first, second = as_jsonl([ROW, Row("ü\udcff.jpg", error="gone")])
    assert json.loads(first) == {
        "path": "a.jpg",
        "label": "coast",
        "probability": 0.75,
        "top": [["coast", 0.75], ["street", 0.25]],
        "error": None,
    }
    assert second.decode() == (
        '{"path": "ü\\udcff.jpg", "label": null, "probability": null, "top": [], "error": "gone"}\n'
    )


@given(st.lists(rows, max_size=5))
def test_csv_read_again(written: list[Row]) -> None:
    content = b"".join(as_csv(written, 3, header=True)).decode("utf-8", "surrogateescape")
    header, *actual = csv.reader(io.StringIO(content, newline=""))
    assert header == columns(3)
    assert len(actual) == len(written)
    for row, cells in zip(written, actual, strict=True):
        assert cells[0].removeprefix("./") == row.path.removeprefix("./")
        pairs = list(zip(cells[1:-1:2], cells[2:-1:2], strict=True))[: len(row.top)]
        assert [(unguarded(label), float(p)) for label, p in pairs] == list(row.top)
        assert cells[-1] == row.error


@given(rows)
def test_json_read_again(row: Row) -> None:
    (line,) = as_jsonl([row])
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    line.decode("utf-8")
    assert from_json(line) == row


@pytest.mark.parametrize("name", ["=1+1", "+a", "-a", "@a", "\ta", "\uff1d1"])
def test_no_class_begins_a_formula(name: str) -> None:
    (line,) = as_csv([Row("a.jpg", ((name, 0.5),))], 1, header=False)
    assert line == f"a.jpg,'{name},0.5,\n".encode()


def test_what_a_terminal_obeys_is_escaped_in_json() -> None:
    row = Row("\x1b[2J\x9b.jpg", (("\u202ered\x7f", 0.5),))
    (line,) = as_jsonl([row])
    assert not HIDDEN.search(line.decode().removesuffix("\n"))
    assert from_json(line) == row


@pytest.mark.parametrize("start", ["=1+1", "+a", "-a", "@a", "\ta"])
def test_no_path_begins_a_formula(start: str) -> None:
    (line,) = as_csv([Row(f"{start}.jpg", ROW.top)], 2, header=False)
    assert line.startswith(f"./{start}.jpg,".encode())


@pytest.mark.parametrize(
    "line", [b"", b"{}\n", b"[]\n", b"3\n", b'{"path": "a", "top"', b'{"path": "a", "top": [1]}\n']
)
def test_what_is_no_row_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        from_json(line)


def test_rows_of_a_batch() -> None:
    outputs = {
        "label": np.array([1, 0]),
        "probabilities": np.array([[0.3, 0.3, 0.4], [0.5, 0.2, 0.3]], np.float32),
    }
    made = make_rows(["a", "b", "c"], {1: "gone"}, outputs, ["x", "y", "z"], 2)
    assert made == [
        # The bundle's label leads even where its probability does not.
        Row("a", (("y", 0.3), ("z", 0.4))),
        Row("b", error="gone"),
        Row("c", (("x", 0.5), ("z", 0.3))),
    ]


@given(st.floats(0, 1, width=32))
def test_probabilities_keep_what_a_float32_knows(value: float) -> None:
    outputs = {"label": np.array([0]), "probabilities": np.array([[value]], np.float32)}
    ((_, shown),) = make_rows(["a"], {}, outputs, ["x"], 1)[0].top
    assert shown == pytest.approx(value, rel=1e-6, abs=1e-30)


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        '{"path": "a", "top": [["x", NaN]], "error": null}',
        '{"path": "a", "top": [["x", 1' + "0" * 400 + ']], "error": null}',
        '{"path": "a", "top": [["\\ud800", 1]], "error": null}',
        '{"path": "\\ud800", "top": [["x", 1]], "error": null}',
        '{"path": "a", "top": 3, "error": null}',
        "3",
    ],
)
def test_lines_that_are_no_row(line: str) -> None:
    """The journal of an unfinished output lies beside it, where others may write."""
    with pytest.raises(ValueError):
        from_json(line.encode())


def test_more_classes_than_columns_do_not_move_the_others() -> None:
    assert list(as_csv([ROW], 1, header=False)) == [b"a.jpg,coast,0.75,\n"]
