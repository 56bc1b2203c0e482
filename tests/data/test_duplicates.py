"""Images that stand in train and test, or under two classes."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scenetrack.config import HandcraftedConfig
from scenetrack.data.catalog import load_dataset
from scenetrack.data.check import check_folder, format_report
from scenetrack.data.duplicates import in_train, in_two_classes
from scenetrack.errors import DataError
from scenetrack.evaluation import evaluate
from scenetrack.records import MemoryTracker, Metric, Table, Tag
from scenetrack.workflow.dataset import open_dataset
from scenetrack.workflow.evaluation import evaluation_records


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three training and two test images of two classes; one test image stands in train too."""
    rng = np.random.default_rng(0)
    root = tmp_path / "photos"
    for part, count in (("train", 3), ("test", 2)):
        for name in ("coast", "forest"):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")
    shutil.copy(root / "train" / "coast" / "0.png", root / "test" / "coast" / "copy.png")
    return root


def test_copies_are_known_by_their_bytes(folder: Path) -> None:
    dataset = load_dataset(str(folder), seed=0)
    assert [dataset.test.names[place] for place in np.flatnonzero(in_train(dataset))] == [
        "coast/copy.png"
    ]
    assert in_two_classes(dataset) == []


def test_training_copies_are_left_out(folder: Path) -> None:
    before = load_dataset(str(folder), seed=0)
    dataset = load_dataset(str(folder), seed=0, drop_duplicates=True)
    assert dataset.left_out == (("coast/0.png", "coast/copy.png"),)
    assert len(dataset.train) == len(before.train) - 1
    assert len(dataset.test) == len(before.test)
    assert not in_train(dataset).any()
    assert dataset.digest != before.digest


def test_a_class_whose_images_are_all_in_test_is_refused(folder: Path) -> None:
    for number in range(3):
        source = folder / "train" / "forest" / f"{number}.png"
        shutil.copy(source, folder / "test" / "forest" / f"copy_{number}.png")
    with pytest.raises(DataError, match=r"all of class 'forest' are in test too"):
        load_dataset(str(folder), seed=0, drop_duplicates=True)


def test_a_run_says_it(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copy(folder / "train" / "coast" / "1.png", folder / "train" / "forest" / "coast.png")
    tracker = MemoryTracker()
    open_dataset(HandcraftedConfig(data=str(folder), test=False), tracker)
    assert "test images that are also in train: 1 of 5; accuracy is logged with" in caplog.text
    assert (
        "images that stand in two classes: 1, the first is coast/1.png = forest/coast.png"
    ) in caplog.text
    assert Tag("test_images_in_train", "1") in tracker.records
    assert Metric("data/test_images_in_train", 1) in tracker.records
    assert Metric("data/images_in_two_classes", 1) in tracker.records
    (folder / "train" / "forest" / "coast.png").unlink()
    caplog.clear()
    tracker = MemoryTracker()
    with caplog.at_level(logging.INFO):
        open_dataset(HandcraftedConfig(data=str(folder), drop_duplicates=True), tracker)
    assert "are also in train" not in caplog.text
    assert "left out because they are in test too: 1" in caplog.text
    (table,) = [record for record in tracker.records if isinstance(record, Table)]
    assert list(table.rows) == [("coast/0.png", "coast/copy.png")]


def test_accuracy_is_told_with_and_without_the_copies(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = load_dataset(str(folder), seed=0)
    # Right on the copy (coast/copy.png, the third) and on one other of the four.
    predictions = np.array([0, 1, 0, 0, 0])
    evaluation = evaluate(dataset.test.labels, predictions, dataset.class_names)
    with caplog.at_level(logging.INFO):
        records = evaluation_records(evaluation, dataset, "guess")
    assert Metric("test/accuracy_without_copies", 0.25) in records
    assert Metric("test/accuracy", 0.4) in records
    assert "guess: 25.0% right without the 1 test images that are also in train" in caplog.text


def test_the_check_calls_them_problems(folder: Path) -> None:
    shutil.copy(folder / "train" / "coast" / "1.png", folder / "train" / "forest" / "coast.png")
    report = check_folder(folder)
    assert report.problems == ()
    text = format_report(report)
    assert "problems: 2" in text
    assert "test images that are also in train: 1 of 5" in text
    assert "images that stand in two classes: 1" in text


def test_classes_that_differ_in_capitals_are_a_problem(folder: Path) -> None:
    for part in ("train", "test"):
        (folder / part / "Coast").mkdir()
        colour = "red" if part == "train" else "blue"
        Image.new("RGB", (8, 8), colour).save(folder / part / "Coast" / "0.png")
    assert "classes 'Coast' and 'coast' differ in capitals only" in format_report(
        check_folder(folder)
    )
