"""Predictions written as a table and read back, also those of earlier versions and of others."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenetrack.errors import ModelError
from scenetrack.evaluation import PREDICTIONS, Predictions, evaluate, read_predictions
from scenetrack.evaluation.predictions import prediction_table
from scenetrack.records import Table
from scenetrack.system.spreadsheets import guarded

NAMES = ("=1+1", "forest, dark", 'the "street"')


def write(path: Path, table: Table) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [table.columns, *table.rows]
        csv.writer(file).writerows([[guarded(cell) for cell in row] for row in rows])
    return path


@settings(deadline=None)  # files
@given(seed=st.integers(0, 10**6), images=st.integers(1, 30))
def test_what_is_read_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, seed: int, images: int
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, images)
    shares = rng.dirichlet(np.ones(3), images)
    files = [f"=1+1/{k},1.jpg" for k in range(images)]
    before = evaluate(labels, np.log(shares), NAMES, shares)
    reported = Predictions(tuple(files), NAMES, labels, before.predictions, before.probabilities)
    table = prediction_table(reported, before.scores)
    found = read_predictions(write(tmp_path_factory.mktemp("said") / PREDICTIONS, table))
    assert found.files == tuple(files)
    assert found.class_names == NAMES
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(found.predictions, before.predictions)
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities, shares, rtol=1e-6)
    after = evaluate(found.labels, found.predictions, NAMES, found.probabilities)
    assert after.ece == pytest.approx(before.ece, abs=1e-6)


@pytest.mark.parametrize("more", [(), ("probability", "probability of coast")])
def test_files_without_probabilities(tmp_path: Path, more: tuple[str, ...]) -> None:
    columns = ("file", "label", "predicted", "score", *more)
    empty = ("",) * len(more)
    rows = [("a.jpg", "coast", "coast", "", *empty)]
    found = read_predictions(write(tmp_path / "old.csv", Table("old", columns, rows)))
    assert found.probabilities is None
    assert found.class_names == ("coast",)


def test_an_earlier_versions_classes_are_those_of_its_run(tmp_path: Path) -> None:
    columns = ("file", "label", "predicted", "score")
    rows = [("a.jpg", "sea", "land", "1.5"), ("b.jpg", "land", "land", "1.5")]
    path = write(tmp_path / "old.csv", Table("old", columns, rows))
    assert read_predictions(path).labels.tolist() == [1, 0]
    named = read_predictions(path, ("sea", "air", "land"))
    assert named.class_names == ("sea", "air", "land")
    assert (named.labels.tolist(), named.predictions.tolist()) == ([0, 2], [2, 2])
    with pytest.raises(ModelError, match="names the class 'land', which is none of sea, air"):
        read_predictions(path, ("sea", "air"))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "file,label,predicted,score\n",
        "file,label,score\na.jpg,coast,1\n",
        "file,label,predicted,score\na.jpg,coast\n",
        "file,label,predicted,score,probability,p\na.jpg,coast,coast,1,1,1\n",
        "file,label,predicted,score,probability,probability of coast\na.jpg,coast,coast,1,1,x\n",
    ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "damaged.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=r"with the columns file, label, .*damaged\.csv is none"):
        read_predictions(path)


HEADER = "file,label,predicted,score,probability,probability of sea,probability of land\n"
FIRST = "sea/a.jpg,sea,sea,1.5,0.75,0.75,0.25\n"


@pytest.mark.parametrize(
    ("row", "reported"),
    [
        ("b.jpg,sea,land,1,0.75,0.75,0.25", "has a predicted class that another one is more prob"),
        ("b.jpg,sea,sea,1,0.25,0.75,0.25", "has two probabilities of the predicted class"),
        ("b.jpg,sea,sea,1,0.7,0.7,0.25", "has probabilities that do not sum to 1"),
        ("b.jpg,sea,sea,1,1.25,1.25,-0.25", "has a probability outside 0 to 1"),
        ("b.jpg,sea,sea,1,nan,nan,0.25", "has a probability outside 0 to 1"),
        ("b.jpg,sea,sea,1,inf,inf,0.25", "has a probability outside 0 to 1"),
        ("b.jpg,sea,sea,1,,,", "has '' for a number"),
        ("b.jpg,sea,sea,1,0.75,0.75,much", "has 'much' for a number"),
        ("b.jpg,sea,sea,nan,0.75,0.75,0.25", "has a score that is not finite"),
        ("b.jpg,sea,sea,,0.75,0.75,0.25", "has '' for a number"),
        ("b.jpg,sea,sea,1,0.75,0.75", "has other columns"),
    ],
)
def test_a_row_that_contradicts_itself_is_named(tmp_path: Path, row: str, reported: str) -> None:
    path = tmp_path / PREDICTIONS
    path.write_text(f"{HEADER}{FIRST}{row}\nc.jpg,sea,land,1,0.5,0.5,0.5\n", encoding="utf-8")
    with pytest.raises(
        ModelError, match=rf"predictions\.csv is none \(row 2 \(b\.jpg\) {reported}"
    ):
        read_predictions(path)


def test_a_file_that_is_named_twice(tmp_path: Path) -> None:
    path = tmp_path / PREDICTIONS
    path.write_text(f"{HEADER}{FIRST}{FIRST.replace('a.jpg', 'b.jpg')}{FIRST}", encoding="utf-8")
    with pytest.raises(ModelError, match=r"\(row 3 \(sea/a\.jpg\) names a file for the second"):
        read_predictions(path)


def test_a_class_that_is_named_twice(tmp_path: Path) -> None:
    path = tmp_path / PREDICTIONS
    path.write_text(f"{HEADER.replace('land', 'sea')}{FIRST}", encoding="utf-8")
    with pytest.raises(ModelError, match="it names a class twice"):
        read_predictions(path)


def test_equal_probabilities_and_their_rounding_are_no_contradiction(tmp_path: Path) -> None:
    third = "0.3333333,0.3333333,0.3333333,0.3333334"
    header = f"{HEADER.strip()},probability of air\n"
    path = tmp_path / PREDICTIONS
    path.write_text(f"{header}a.jpg,sea,land,0,{third}\n", encoding="utf-8")
    assert read_predictions(path).predictions.tolist() == [1]


def test_bytes_that_are_no_text_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("bytes.csv", "missing.csv"):
        with pytest.raises(ModelError, match="is required"):
            read_predictions(tmp_path / name)
