"""Each entry point on the tiny folder, and models handed from one to another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mlflow import entities
from PIL import Image
from shipped import bundled, check_against_the_run
from workplace import TINY_MLP, TINY_PATCHES, Workplace, finished, flags

from scenetrack import cli, tracking
from scenetrack.data.images import load_images
from scenetrack.networks.training import load_model

SVM_WORDS = ["--kernels", "linear,rbf", "--folds", "2"]


@pytest.fixture
def picture(workplace: Workplace) -> Path:
    return workplace.data / "test" / "columns" / "columns1.jpg"


def test_train_mlp(workplace: Workplace, twins: tuple[entities.Run, ...]) -> None:
    run = twins[0]
    assert run.info.status == "FINISHED"
    assert (run.data.tags["task"], run.data.tags["classifier"]) == ("1", "network")
    assert run.data.metrics["test/accuracy"] > 0.7
    assert run.data.metrics["epochs"] == len(workplace.curve(run, "val/loss"))
    pictures = {"learning_curves", "topology", "samples", "confusion_matrix"}
    files = workplace.artifacts(run)
    assert {f"figures/{name}.png" for name in pictures} <= files
    assert {"model_summary.txt", "per_class.json", "predictions.csv"} <= files
    assert workplace.children(run) == {}


def test_layer_svm_trains_a_network_of_its_own(workplace: Workplace, twins: object) -> None:
    words = ["--data", str(workplace.data), "--experiment", "svm", *flags(TINY_MLP), *SVM_WORDS]
    out, _ = finished(workplace.start("scenetrack", "layer_svm", *words))
    (run,) = workplace.runs("svm")
    methods = workplace.children(run)
    assert set(methods) == {"end to end", "layer svm"}
    tags = methods["layer svm"].data.tags
    assert (tags["task"], tags["descriptor"], tags["encoder"]) == ("4", "mlp hidden_2", "none")
    assert tags["classifier"] in ("svm linear", "svm rbf")
    assert run.data.metrics["test/accuracy"] > 0.7
    # Its settings were chosen on the images that the network has not seen.
    assert methods["layer svm"].data.params["cv_scope"] == "held-out images"
    assert "val/accuracy" in methods["layer svm"].data.metrics
    assert "cv/accuracy" not in methods["layer svm"].data.metrics
    assert all(name in out for name in methods)
    assert out.splitlines()[-1].startswith(f"run {run.info.run_id}; to ship it: scenetrack bundle")


@pytest.mark.parametrize("layers", ["hidden_1", "hidden_2,hidden_1"])
def test_layer_svm_takes_the_network_of_a_run(
    here: Workplace,
    twins: tuple[entities.Run, ...],
    capsys: pytest.CaptureFixture[str],
    layers: str,
) -> None:
    model, experiment = twins[0].info.run_id, f"svm of {layers}"
    words = ["--data", str(here.data), "--experiment", experiment, *SVM_WORDS]
    words += ["--image-size", "16", "--model", model, "--layer", layers]
    assert cli.main(["layer_svm", *words]) == 0, capsys.readouterr().err
    (run,) = here.runs(experiment)
    methods = here.children(run)
    assert "time/fit_s" not in run.data.metrics
    assert methods["layer svm"].data.tags["descriptor"] == f"mlp {layers.replace(',', ', ')}"
    # The network's file says which images it has not learnt: those choose and judge.
    for name in ("layer svm", "end to end"):
        assert "val/accuracy" in methods[name].data.metrics
        assert "cv/accuracy" not in methods[name].data.metrics
    assert methods["layer svm"].data.params["cv_scope"] == "held-out images"
    end_to_end = methods["end to end"].data.metrics["test/accuracy"]
    assert end_to_end == twins[0].data.metrics["test/accuracy"]
    svm = methods["layer svm"].info.run_id
    check_against_the_run(bundled(svm), svm, here.data)


def test_patch_bow_takes_a_keras_file(
    here: Workplace, project_run: entities.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tracking.resolve_model(project_run.info.run_id, "")
    words = ["--data", str(here.data), "--experiment", "words of a file", *flags(TINY_PATCHES)]
    assert cli.main(["patch_bow", *words, "--model", str(path)]) == 0, capsys.readouterr().err
    (run,) = here.runs("words of a file")
    mine, other = here.children(run), here.children(project_run)
    assert set(mine) == set(other)
    for name, method in mine.items():
        accuracy = other[name].data.metrics["test/accuracy"]
        assert method.data.metrics["test/accuracy"] == accuracy


class TestActivations:
    def test_of_an_mlp(
        self,
        here: Workplace,
        twins: tuple[entities.Run, ...],
        picture: Path,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
    ) -> None:
        model = twins[0].info.run_id
        words = ["--layer", "hidden_1", "--model", model, "--output", str(tmp_path / "new")]
        assert cli.main(["activations", str(picture), *words]) == 0, capsys.readouterr().err
        stem = tmp_path / "new" / "columns1-hidden_1"
        assert str(stem) in capsys.readouterr().out
        with np.load(stem.with_suffix(".npz"), allow_pickle=False) as arrays:
            values, pixels = arrays["values"], arrays["image"]
        assert (values.shape, values.dtype) == ((24,), np.float32)
        assert np.array_equal(pixels, load_images([picture], 16)[0])
        with Image.open(stem.with_suffix(".png")) as image:
            assert image.format == "PNG"
            assert min(image.size) > 200

    def test_of_a_patch_network_is_a_map(
        self, here: Workplace, project_run: entities.Run, picture: Path
    ) -> None:
        words = ["--layer", "hidden_2", "--model", project_run.info.run_id]
        assert cli.main(["activations", str(picture), *words]) == 0
        with np.load("columns1-hidden_2.npz", allow_pickle=False) as arrays:
            values, pixels = arrays["values"], arrays["image"]
        # Patches of 8 px, every 2 px of the 128 px image.
        assert values.shape == (61, 61, 12)
        network = load_model(tracking.resolve_model(project_run.info.run_id, ""))
        hidden = network.get_layer("dropout_2").input
        import keras

        one = keras.Model(network.inputs, hidden).predict(pixels[None, 4:12, 6:14], verbose=0)
        assert values[2, 3] == pytest.approx(one[0], abs=1e-5)

    def test_lists_the_layers(
        self,
        here: Workplace,
        twins: tuple[entities.Run, ...],
        picture: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        words = ["--layer", "list", "--model", twins[0].info.run_id]
        assert cli.main(["activations", str(picture), *words]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert ["hidden_1", "Activation", "24"] in lines
        assert ["pixels", "Flatten", "768"] in lines


def test_main_runs_the_story_with_each_stages_defaults(
    here: Workplace,
    twins: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Enough descriptors for 1,024 words take a minute, and only their number is tested here.
    monkeypatch.setattr("scenetrack.workflow.encoding._PER_WORD", 2)
    monkeypatch.setattr("scenetrack.workflow.encoding._FEWEST", 2000)
    assert cli.main(["main", "--data", str(here.data), "--experiment", "story"]) == 0
    (run,) = here.runs("story")
    stages = here.children(run)
    assert set(stages) == {"train_mlp", "layer_svm", "patch_bow"}
    assert {stage.info.status for stage in (run, *stages.values())} == {"FINISHED"}
    for name, stage in stages.items():
        assert stage.data.tags["stage"] == name
        assert stage.data.params["data"] == str(here.data)
    assert set(here.children(stages["layer_svm"])) == {"end to end", "layer svm"}
    assert len(here.children(stages["patch_bow"])) == 5
    assert "comparison.json" in here.artifacts(run)
    table = capsys.readouterr().out.rpartition("\n\n")[2]
    for method in ("train_mlp: MLP", "layer_svm: layer svm", "patch_bow: end to end"):
        assert method in table
