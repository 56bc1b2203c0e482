"""scenetrack export, on the runs that the other tests share."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from mlflow import entities
from PIL import Image
from workplace import CLASSES, Workplace

from scenetrack import cli, tracking
from scenetrack.data.images import load_images
from scenetrack.data.patches import PatchGrid
from scenetrack.export.verify import relative_error, row_cosines
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.networks.training import load_model


def export(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(["export", *words]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def refusal(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> str:
    assert cli.main(["export", *words]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    *shown, error = captured.err.splitlines()
    assert error.startswith("error: ")
    assert not any(line.startswith(("error", "Traceback")) for line in shown)
    return error


def keras_values(run: entities.Run, layer: str, pixels: np.ndarray) -> np.ndarray:
    network = load_model(tracking.resolve_model(run.info.run_id, ""))
    part = keras.Model(network.inputs, network.get_layer(layer).output)
    return np.asarray(part.predict(pixels, verbose=0))


@pytest.fixture
def images(workplace: Workplace) -> np.ndarray:
    return load_images(sorted((workplace.data / "test" / "bars").iterdir()), 32)


def test_a_dense_layer_of_a_patch_run(
    here: Workplace,
    project_run: entities.Run,
    images: np.ndarray,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = project_run.info.run_id
    out = export(capsys, run, "--layer", "hidden_1", "--dense", "-o", "layer.onnx")
    assert "descriptors [any, any, any, 24]" in out
    assert "dense form: " in out
    assert "random and real images" in out
    model = OnnxModel(Path("layer.onnx"))
    metadata = model.metadata
    assert metadata["source_run"] == run
    assert (metadata["layer"], metadata["patch_size"], metadata["stride"]) == ("hidden_1", "8", "4")
    assert metadata["classes"] == '["bars", "checks", "columns"]'
    patches = PatchGrid(32, 8, 4).extract(images)
    expected = keras_values(project_run, "hidden_1", patches.reshape(-1, 8, 8, 3))
    actual = model.run(images=images)["descriptors"]
    assert actual.shape == (5, 7, 7, 24)
    assert relative_error(expected, actual.reshape(-1, 24)) < 1e-5
    graph = onnx.load("layer.onnx")
    assert (graph.ir_version, graph.opset_import[0].version) == (10, 21)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_precisions_report_what_they_cost(
    here: Workplace,
    project_run: entities.Run,
    images: np.ndarray,
    capsys: pytest.CaptureFixture[str],
    precision: str,
) -> None:
    words = [project_run.info.run_id, "--dense", "--stride", "2", "--form", "patches"]
    out = export(capsys, *words, "--precision", precision, "-o", f"{precision}.onnx")
    assert "mean cosine with fp32: 0.99" in out or "mean cosine with fp32: 1.00" in out
    assert "test accuracy of the network on 15 images: fp32 " in out
    export(capsys, *words, "-o", "fp32.onnx")
    exact, reduced = (OnnxModel(Path(f"{name}.onnx")) for name in ("fp32", precision))
    assert Path(f"{precision}.onnx").stat().st_size != Path("fp32.onnx").stat().st_size
    actual = [model.run(images=images)["descriptors"] for model in (exact, reduced)]
    assert row_cosines(*actual).mean() > 0.99
    assert not np.array_equal(*actual)


def test_whole_image_networks_and_files(
    here: Workplace, twins: tuple[entities.Run, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tracking.resolve_model(twins[0].info.run_id, "")
    out = export(capsys, str(path), "-o", "file.onnx")
    assert "on random images" in out
    assert str(path.parent) not in str(OnnxModel(Path("file.onnx")).metadata)
    out = export(capsys, twins[0].info.run_id, "--precision", "int8", "-o", "run.onnx")
    assert "test accuracy of the network on 15 images" in out
    pixels = load_images(sorted((here.data / "test" / "checks").iterdir()), 16)
    expected = keras_values(twins[0], "hidden_2", pixels)
    assert relative_error(expected, OnnxModel("file.onnx").run(images=pixels)["descriptors"]) < 1e-5


def test_other_data_do_not_rename_the_classes(
    here: Workplace, twins: tuple[entities.Run, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ants", "bees"):
        for split in ("train", "test"):
            folder = Path("other", split, name)
            folder.mkdir(parents=True)
            for index in range(2):
                pixels = np.full((9, 9, 3), 50 * index + len(split), np.uint8)
                Image.fromarray(pixels).save(folder / f"{name}{index}.png")
    words = (twins[0].info.run_id, "--data", "other", "--precision", "int8", "-o", "x.onnx")
    assert "not measured, for no data set of its classes" in export(capsys, *words)
    assert json.loads(OnnxModel("x.onnx").metadata["classes"]) == list(CLASSES)


def test_a_patch_network_as_it_is(
    here: Workplace, project_run: entities.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    out = export(capsys, project_run.info.run_id, "-o", "patch.onnx")
    assert "images [any, 8, 8, 3] -> descriptors [any, 12]" in out
    assert OnnxModel(Path("patch.onnx")).metadata["patch_size"] == "8"


def test_lists_the_layers(
    here: Workplace, twins: tuple[entities.Run, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    out = export(capsys, twins[0].info.run_id, "--layer", "list")
    assert any(line.split()[:2] == ["hidden_1", "Activation"] for line in out.splitlines())
    assert list(Path().iterdir()) == []


def test_refusals(
    here: Workplace,
    project_run: entities.Run,
    twins: tuple[entities.Run, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = project_run.info.run_id
    assert "run id or .keras file is required" in refusal(capsys, 2)
    assert "no run 'nothing'" in refusal(capsys, 2, "nothing")
    assert "layer must be one of" in refusal(capsys, 2, run, "--layer", "hiden_1")
    assert "add --dense" in refusal(capsys, 2, run, "--stride", "4")
    assert "precision must be one of" in refusal(capsys, 2, run, "--precision", "fp8")
    assert "contradicts" in refusal(capsys, 2, run, "--device", "cpu", "--require-gpu")
    path = str(tracking.resolve_model(run, ""))
    assert "add --stride" in refusal(capsys, 2, path, "--dense")
    assert "must end in .onnx" in refusal(capsys, 2, path, "-o", path)
    Path("x.onnx").mkdir()
    assert "is a folder" in refusal(capsys, 2, run, "-o", "x.onnx")
    Path("x.onnx").rmdir()
    Path("file").touch()
    assert "writable folder" in refusal(capsys, 2, run, "-o", "file/x.onnx")
    assert [item.name for item in Path().iterdir()] == ["file"]
