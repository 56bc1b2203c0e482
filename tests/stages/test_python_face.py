"""Entry points, models and comparisons from Python, on the tiny folder."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from mlflow import entities
from PIL import Image
from workplace import CLASSES, Workplace

import scenetrack
from scenetrack.errors import ConfigError

SETTINGS = {
    "image_size": 32,
    "step": 8,
    "bin_sizes": [4],
    "pca": 6,
    "codebook_size": 4,
    "encoder": "vlad",
    "folds": 2,
}


@pytest.fixture
def result(here: Workplace, twins: object) -> scenetrack.Result:
    return scenetrack.run("handcrafted", data=str(here.data), experiment="face", **SETTINGS)


@pytest.fixture
def files(here: Workplace) -> list[str]:
    return sorted(map(str, (here.data / "test" / "bars").iterdir()))


def test_a_run_and_its_model(
    here: Workplace, result: scenetrack.Result, files: list[str], tmp_path: Path
) -> None:
    run = here.client.get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert list(result.table.index) == ["vlad linear svm"]
    accuracy = result.table.loc["vlad linear svm", "test/accuracy"]
    assert accuracy == result.evaluations["vlad linear svm"].accuracy
    assert "samples" in result.figures
    assert Image.open(io.BytesIO(result.figures["samples"])).format == "PNG"

    model = scenetrack.load(result.run_id)
    assert model.classes == CLASSES
    table = model.predict(files)
    assert list(table["image"]) == files
    assert set(table["label"]) <= set(CLASSES)
    shares = table[[f"probability/{name}" for name in CLASSES]].to_numpy()
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(table["probability"], shares.max(axis=1))
    folder = model.predict(here.data / "test" / "bars")
    assert folder.equals(table)
    pixels = np.stack([np.asarray(Image.open(path)) for path in files])
    assert list(model.predict(pixels)["label"]) == list(table["label"])

    (tmp_path / "broken.jpg").write_bytes(b"no image")
    mixed = model.predict([str(tmp_path / "broken.jpg"), files[0]])
    assert mixed["error"][0]
    assert mixed["label"].isna().tolist() == [True, False]
    assert mixed["label"][1] == table["label"][0]

    descriptors = model.descriptors(files)
    assert descriptors.shape[0] == len(files)
    assert descriptors.shape[2] == 128
    saliency = model.explain(files[0])
    assert saliency.shape == (model.image_size, model.image_size)
    assert np.isfinite(saliency).any()
    with pytest.raises(scenetrack.InputError, match=r"one image\. Received: 5"):
        model.explain(here.data / "test" / "bars")
    with pytest.raises(scenetrack.InputError, match=r"join arrays with numpy\.stack"):
        model.predict(list(pixels))  # type: ignore[arg-type]
    with pytest.raises(scenetrack.InputError, match="images are required"):
        model.predict("-")


def test_runs_are_compared(project_run: entities.Run, here: Workplace) -> None:
    table = scenetrack.compare(project_run.info.run_id)
    assert table["accuracy"].is_monotonic_decreasing
    assert "end to end" in table.index


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("patchbow", {}, "an entry point must be one of: main, train_mlp"),
        ("train_mlp", {"epohcs": 3}, "train_mlp has no parameter 'epohcs'"),
        ("train_mlp", {"epochs": 0}, "epochs must be at least 1"),
        ("train_mlp", {"epochs": "3"}, "epochs must be a whole number. Received: '3'"),
        ("train_mlp", {"epochs": 2.5}, "epochs must be a whole number. Received: 2.5"),
        ("train_mlp", {"seed": True}, "seed must be a whole number. Received: True"),
        ("train_mlp", {"hidden": 5}, "hidden must be a list or a tuple. Received: 5"),
        ("train_mlp", {"hidden": ["a"]}, "hidden must be a whole number. Received: 'a'"),
        ("train_mlp", {"skip_bad": "no"}, "skip_bad must be True or False. Received: 'no'"),
        ("train_mlp", {"data": 3}, "data must be a text. Received: 3"),
        ("train_mlp", {"preset": "finest"}, "preset must be one of"),
    ],
)
def test_wrong_settings_are_refused(name: str, settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        scenetrack.run(name, **settings)


def test_settings_may_be_numpys_numbers_and_paths() -> None:
    from scenetrack.api.runs import _config

    settings = {"epochs": np.int64(3), "learning_rate": 1, "hidden": [4], "data": Path("photos")}
    config = _config("train_mlp", settings)
    assert config.as_params().items() >= {
        ("epochs", "3"),
        ("learning_rate", "1.0"),
        ("hidden", "4"),
        ("data", "photos"),
    }


def test_a_comparison_needs_a_run() -> None:
    with pytest.raises(scenetrack.InputError, match="at least one run id"):
        scenetrack.compare()


@pytest.mark.parametrize("name", ["scene.onnx", "scene.ONNX"])
def test_a_bundle_has_no_descriptors(tmp_path: Path, name: str) -> None:
    from fake_bundle import fake_bundle

    path = tmp_path / name
    fake_bundle(path)
    model = scenetrack.load(path)
    with pytest.raises(scenetrack.InputError, match="descriptors need the run"):
        model.descriptors(np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(scenetrack.InputError, match=r"Received: float64 \[1, 8, 8, 3\]"):
        model.predict(np.zeros((1, 8, 8, 3)))
