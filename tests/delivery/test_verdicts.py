"""Bundles that give no figures, too few rows or no labels: what each way to use them says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fake_bundle import CLASSES, fake_bundle, paint

from scenetrack import cli
from scenetrack.api.model import load
from scenetrack.delivery.inference import SceneClassifier
from scenetrack.delivery.verdicts import NOT_FINITE, checked_verdicts
from scenetrack.errors import DataError, ModelError

WHITE, RED = (255, 255, 255), (200, 0, 0)


@pytest.fixture(autouse=True)
def _photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paint(Path("photos", "a.png"), RED)
    paint(Path("photos", "b.png"), WHITE)
    paint(Path("photos", "c.png"), RED)


class TestScoresThatAreNotFinite:
    """The image has an error and no label; the others keep theirs."""

    @pytest.fixture(params=["Log", "Reciprocal"], autouse=True)
    def _bundle(self, request: pytest.FixtureRequest) -> None:
        fake_bundle(Path("fake.onnx"), white=request.param)

    @pytest.mark.parametrize("format", ["csv", "jsonl"])
    def test_predict(self, format: str, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["--top", "1", "-o", f"rows.{format}", "--explain", "pictures"]
        assert cli.main(["predict", "fake.onnx", "photos", *words]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error == (
            f"error: 1 of 3 images have no class: the column error of rows.{format} says why"
        )
        first, second, third = Path(f"rows.{format}").read_text().splitlines()[-3:]
        assert "red" in first
        assert "red" in third
        assert "nan" not in second.lower()
        assert "inf" not in second.replace("finite", "").lower()
        if format == "csv":
            assert second == f"photos/b.png,,,{NOT_FINITE}"
        else:
            assert json.loads(second)["label"] is None
        assert sorted(path.name for path in Path("pictures").iterdir()) == ["a.png", "c.png"]

    def test_from_python(self) -> None:
        model = load("fake.onnx")
        for images in (
            "photos",
            np.stack([np.full((24, 24, 3), c, np.uint8) for c in (RED, WHITE)]),
        ):
            table = model.predict(images)
            assert table["label"].tolist()[0] == "red"
            assert table["label"].isna()[1]
            assert table["probability"].isna()[1]
            assert table["error"].tolist()[:2] == ["", NOT_FINITE]
        with pytest.raises(ModelError, match="no finite scores"):
            model.explain("photos/b.png")

    def test_served(self) -> None:
        served = SceneClassifier(Path("fake.onnx"))
        red, white = Path("photos/a.png").read_bytes(), Path("photos/b.png").read_bytes()
        assert served.classify([red])[0].label == "red"
        with pytest.raises(DataError, match="image 2 of the request cannot be classified"):
            served.classify([red, white, red])


class TestFewerRowsThanImages:
    @pytest.fixture(autouse=True)
    def _bundle(self) -> None:
        fake_bundle(Path("fake.onnx"), dropped=1)

    def test_predict(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["predict", "fake.onnx", "photos"]) == 2
        assert "a row for each image is required" in capsys.readouterr().err

    def test_from_python_and_served(self) -> None:
        with pytest.raises(ModelError, match="a row for each image"):
            load("fake.onnx").predict("photos")
        with pytest.raises(ModelError, match="a row for each image"):
            load("fake.onnx").explain("photos/a.png")
        with pytest.raises(ModelError, match="a row for each image"):
            SceneClassifier(Path("fake.onnx")).classify([Path("photos/a.png").read_bytes()])


@pytest.mark.parametrize(
    "names",
    [
        ["red", "green", "\ud800"],  # no text can hold it
        ["red", "green", "green"],
        ["red", "green", ""],
        ["red", "green"],
    ],
)
def test_classes_that_cannot_be_named(names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    fake_bundle(Path("fake.onnx"), classes=json.dumps(names))
    assert cli.main(["predict", "fake.onnx", "photos"]) == 2
    assert capsys.readouterr().err.startswith("error: a bundle is required, but")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": np.array([0, 3])}, "labels of its 3 classes"),
        ({"label": np.array([-1, 0])}, "labels of its 3 classes"),
        ({"label": np.zeros((2, 1), np.int64)}, "a row for each of 2 images"),
        ({"scores": np.zeros((2, 2), np.float32)}, "a row for each of 2 images"),
        ({"evidence": np.zeros((1, 2, 2, 3), np.float32)}, "a row for each of 2 images"),
    ],
)
def test_outputs_that_are_no_verdicts(change: dict[str, np.ndarray], message: str) -> None:
    outputs = {
        "label": np.array([0, 1]),
        "probabilities": np.full((2, len(CLASSES)), 1 / 3, np.float32),
        "scores": np.zeros((2, len(CLASSES)), np.float32),
    }
    assert checked_verdicts(outputs, 2, 3).usable.all()
    with pytest.raises(ModelError, match=message):
        checked_verdicts(outputs | change, 2, 3)


def test_probabilities_outside_their_range_are_no_figures() -> None:
    outputs = {
        "label": np.array([0, 0, 0]),
        "probabilities": np.array([[1.5, 0], [1, 0], [0.5, -1]], np.float32),
        "scores": np.zeros((3, 2), np.float32),
    }
    assert checked_verdicts(outputs, 3, 2).usable.tolist() == [False, True, False]
