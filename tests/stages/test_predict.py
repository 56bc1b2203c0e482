"""The command predict in this process: rows, errors, exit codes, and what it goes on with."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from fake_bundle import CLASSES, fake_bundle, paint, probabilities
from PIL import Image

from scenetrack import cli
from scenetrack.delivery.file_classifier import Classifier
from scenetrack.delivery.output_journal import Journal
from scenetrack.delivery.rows import Row
from scenetrack.errors import ModelError
from scenetrack.graphs.runtime import OnnxModel

COLOURS = {"r.png": (200, 0, 0), "g.png": (9, 99, 50), "b.png": (1, 2, 250)}
LABELS = {"r.png": "red", "g.png": "green", "b.png": "blue"}


@pytest.fixture(autouse=True)
def _photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, colour in COLOURS.items():
        paint(Path("photos", name), colour)
    fake_bundle(Path("fake.onnx"))


def test_metadata_out_of_all_bounds_are_told_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake_bundle(Path("many.onnx"), workspace_bytes="9" * 5000)
    assert cli.main(["predict", "many.onnx", "photos"]) == 0
    fake_bundle(Path("deep.onnx"), classes="[" * 100_000)
    assert cli.main(["predict", "deep.onnx", "photos"]) == 2
    assert "a bundle is required" in capsys.readouterr().err


def test_an_output_whose_name_is_too_long(capsys: pytest.CaptureFixture[str]) -> None:
    name = f"{'x' * 240}.csv"
    assert cli.main(["predict", "fake.onnx", "photos", "-o", name]) == 2
    assert "choose another output" in capsys.readouterr().err


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def standard_input(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_rows_on_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert cli.main(["predict", "fake.onnx", "photos", "--top", "2"]) == 0
    out, err = capfdbinary.readouterr()
    rows = table(out.decode())
    assert [row["path"] for row in rows] == ["photos/b.png", "photos/g.png", "photos/r.png"]
    assert list(rows[0]) == ["path", "label", "probability", "label_2", "probability_2", "error"]
    for row in rows:
        name = Path(row["path"]).name
        expected = probabilities(COLOURS[name])
        first, second = np.argsort(-expected)[:2]
        assert (row["label"], row["label_2"]) == (LABELS[name], CLASSES[second])
        shown = [float(row["probability"]), float(row["probability_2"])]
        np.testing.assert_allclose(shown, expected[[first, second]], rtol=1e-5)
    assert b"Traceback" not in err


def test_unreadable_images_have_rows_and_an_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    Path("photos/broken.jpg").write_bytes(b"no image")
    words = ["photos/r.png", "photos/broken.jpg", "photos/g.png", "-o", "rows.csv"]
    assert cli.main(["predict", "fake.onnx", *words]) == 2
    rows = table(Path("rows.csv").read_text())
    assert [row["label"] for row in rows] == ["red", "", "green"]
    assert rows[1]["error"] == "no JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF image"
    assert rows[1]["probability"] == ""
    assert rows[0]["error"] == ""
    (line,) = capfd.readouterr().err.splitlines()
    assert line == ("error: 1 of 3 images have no class: the column error of rows.csv says why")
    assert not list(Path().glob("rows.csv.*"))


def test_no_readable_image_at_all(capfd: pytest.CaptureFixture[str]) -> None:
    Path("broken.jpg").write_bytes(b"no image")
    Path("empty.jpg").touch()
    assert cli.main(["predict", "fake.onnx", "broken.jpg", "empty.jpg", "--explain", "maps"]) == 2
    captured = capfd.readouterr()
    assert [bool(row["error"]) for row in table(captured.out)] == [True, True]
    assert os.listdir("maps") == []


def test_paths_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    standard_input(monkeypatch, b"photos/r.png\nphotos/none.png\nphotos/b.png\n")
    assert cli.main(["predict", "fake.onnx", "-", "--format", "jsonl"]) == 2
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [row["label"] for row in rows] == ["red", None, "blue"]
    assert [name for name, _ in rows[0]["top"]] == ["red", "green", "blue"]
    assert rows[1]["error"] == "No such file or directory"


def test_odd_names_come_out_right(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    names = [os.fsencode(n) for n in ("=1+1.png", 'a"b,c.png', "two\nlines.png")] + [b"\xff.png"]
    for name in names:
        paint(Path(os.fsdecode(name)), COLOURS["r.png"])
    assert cli.main(["predict", "fake.onnx", "*.png", "--top", "1"]) == 0
    out = capfdbinary.readouterr().out.decode("utf-8", "surrogateescape")
    paths = [row[0] for row in csv.reader(io.StringIO(out, newline=""))][1:]
    assert sorted(os.fsencode(path).removeprefix(b"./") for path in paths) == sorted(names)
    assert "./=1+1.png" in paths


def test_images_of_other_sizes_are_resized_as_pillow_does(
    capfd: pytest.CaptureFixture[str],
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 31, 3), np.uint8)
    Image.fromarray(pixels).save("noise.png")
    assert cli.main(["predict", "fake.onnx", "noise.png"]) == 0
    narrow = Image.fromarray(pixels).resize((24, 50), Image.Resampling.BILINEAR)
    small = narrow.resize((24, 24), Image.Resampling.BILINEAR)
    powers = np.exp(np.asarray(small).mean(axis=(0, 1), dtype=np.float64) / 100)
    (row,) = table(capfd.readouterr().out)
    assert float(row["probability"]) == pytest.approx((powers / powers.sum()).max(), rel=1e-5)


def test_explained_rows_have_pictures(capfd: pytest.CaptureFixture[str]) -> None:
    fake_bundle(Path("evidence.onnx"), evidence=True)
    for model in ("fake.onnx", "evidence.onnx"):
        assert cli.main(["predict", model, "photos", "--explain", f"maps of {model}"]) == 0
        assert sorted(os.listdir(f"maps of {model}")) == sorted(COLOURS)


def test_going_on_reuses_rows_and_classifies_the_rest(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Rows of one image a batch, interrupted after the second."""
    monkeypatch.setattr(OnnxModel, "batch_size", lambda self, shape: 1)
    words = ["predict", "fake.onnx", "photos", "-o", "rows.jsonl"]
    add = Journal.add

    def interrupted(self: Journal, rows: Sequence[Row]) -> None:
        add(self, rows)
        if len(list(self.rows())) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", interrupted)
        assert cli.main(words) == 130
    assert not Path("rows.jsonl").exists()
    capfd.readouterr()

    classified: list[str] = []
    batches = Classifier.batches

    def watched(self: Classifier, paths: Iterator[str]) -> object:
        for batch in batches(self, paths):
            classified.extend(batch.paths)
            yield batch

    monkeypatch.setattr(Classifier, "batches", watched)
    assert cli.main(words) == 0
    assert classified == ["photos/r.png"]
    assert "reusing 2 rows of" in capfd.readouterr().err
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows] == ["blue", "green", "red"]


@pytest.mark.parametrize("change", ["model", "top", "images"])
def test_other_rows_are_begun_anew(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], change: str
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    words = ["predict", "fake.onnx", "photos", "-o", "rows.csv"]
    with monkeypatch.context() as patch:
        patch.setattr("scenetrack.delivery.output._write", interrupted)
        assert cli.main(words) == 130
    if change == "model":
        fake_bundle(Path("fake.onnx"), method="another")
    if change == "top":
        words += ["--top", "1"]
    if change == "images":
        paint(Path("photos/a.png"), (255, 255, 0))
    assert cli.main(words) == 0
    reported = capfd.readouterr().err
    assert "starting anew" in reported
    assert "reusing" not in reported
    assert len(table(Path("rows.csv").read_text())) == 3 + (change == "images")


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        ([], "a model is required"),
        (["fake.onnx"], "images are required"),
        (["fake.onnx", "none.jpg"], "none.jpg means no image"),
        (["none.onnx", "photos"], "none.onnx"),
        (["fake.onnx", "photos", "-o", "."], "output must be a file"),
        (["fake.onnx", "photos", "-o", "fake.onnx"], "output must be a file for rows"),
        (["fake.onnx", "photos", "--format", "parquet"], "format parquet needs a file"),
        (["fake.onnx", "photos", "--explain", "fake.onnx"], "a writable folder is required"),
        (["other.onnx", "photos"], "a bundle is required, but this ONNX model is none"),
    ],
)
def test_refused_before_any_work(
    capfd: pytest.CaptureFixture[str], words: list[str], reported: str
) -> None:
    fake_bundle(Path("other.onnx"), kind="descriptors")
    assert cli.main(["predict", *words]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert reported in line
    assert Path("fake.onnx").stat().st_size > 500


@pytest.mark.parametrize(
    "about",
    [
        {"kind": ""},
        {"classes": "red,green,blue"},
        {"classes": '["red", "green"]'},
        {"classes": "3"},
        {"classes": "[1, 2, 3]"},
        {"classes": '{"red": 1, "green": 2, "blue": 3}'},
        {"image_size": "large"},
        {"image_size": "0"},
        {"image_size": "-24"},
        {"image_size": "60000"},
    ],
)
def test_what_is_no_bundle_is_refused(about: dict[str, str]) -> None:
    model = OnnxModel(fake_bundle(Path("odd.onnx"), **about), device="cpu")
    with pytest.raises(ModelError, match="a bundle is required"):
        Classifier(model, memory=2**20, threads=1)


def test_devices_are_no_output_files(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["predict", "fake.onnx", "photos", "-o", "/dev/stdout"]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "is a device: leave --output out" in captured.err


def test_a_label_of_no_class_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    model = onnx.load("fake.onnx")
    (made,) = (node for node in model.graph.node if node.output[0] == "label")
    seven = onnx.numpy_helper.from_array(np.array(7), "seven")
    model.graph.initializer.append(seven)
    shifted = onnx.helper.make_node("Add", [made.input[0], "seven"], ["shifted"])
    model.graph.node.insert(list(model.graph.node).index(made), shifted)
    made.input[0] = "shifted"
    onnx.save(model, "odd.onnx")
    assert cli.main(["predict", "odd.onnx", "photos"]) == 2
    assert "a bundle with labels of its 3 classes is required" in capfd.readouterr().err
