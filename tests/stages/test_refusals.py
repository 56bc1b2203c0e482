"""Wrong values at the command line: one line, exit 2, and no training."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import entities
from workplace import TINY_MLP, TINY_PATCHES, Workplace, finished, flags

from scenetrack import cli

NO_RUN = "0" * 32

Folder = Callable[[Path], None]


@pytest.fixture(autouse=True)
def _no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*arguments: object, **options: object) -> None:
        raise AssertionError("a training began")

    monkeypatch.setattr("scenetrack.workflow.network_training.fit", fit)


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of error of these words; what was done until then may stand above it."""
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    assert "Traceback" not in captured.err
    return lines[-1]


def tiny(here: Workplace, stage: str, **changed: str) -> list[str]:
    """The words of a tiny training with some settings changed."""
    settings = dict(TINY_PATCHES if stage == "patch_bow" else TINY_MLP)
    changed = {"data": str(here.data), "experiment": "refusals", **changed}
    return [stage, *flags(settings | changed)]


@pytest.mark.parametrize(
    ("stage", "changed", "said"),
    [
        ("train_mlp", {"hidden": "24,-5"}, "hidden must be at least 1. Received: -5"),
        ("train_mlp", {"preset": "curse"}, "one of: course, best, tuned. Received: 'curse'"),
        ("train_mlp", {"resume": NO_RUN}, f"there is no run '{NO_RUN}'"),
        ("train_mlp", {"data": "nowhere"}, "there is no folder nowhere"),
        ("patch_bow", {"patch_size": "33"}, "patch_size 33 is larger than image_size 32"),
        ("patch_bow", {"layer": "hidden_9"}, "layer must be one of: "),
        ("patch_bow", {"pca": "13"}, "at most the 12 values of layer hidden_2"),
        ("patch_bow", {"whitening": "193"}, "at most the 192 values of a patch"),
        ("patch_bow", {"model": "missing.keras"}, "model file missing.keras does not exist"),
        ("patch_bow", {"model": NO_RUN}, f"there is no run '{NO_RUN}'"),
        ("patch_bow", {"folds": "1"}, "folds must be at least 2. Received: 1"),
        (
            "patch_bow",
            {"square_root": "true", "activation": "gelu", "mean_colour": "false"},
            "square_root takes no negative values, but layer hidden_2 gives them. Received: -0.",
        ),
        (
            "patch_bow",
            {"square_root": "true", "layer": "logits", "pca": "0"},
            "but layer logits gives",
        ),
        ("layer_svm", {"layer": "hidden_9"}, "layer must be one of: "),
        ("layer_svm", {"kernels": "none"}, "kernels needs at least one of"),
        ("layer_svm", {"model": "missing.keras"}, "model file missing.keras does not exist"),
        ("layer_svm", {"kernels": "rbf,chi2"}, "the chi2 kernel takes no negative values"),
    ],
)
def test_wrong_value(
    here: Workplace,
    twins: object,
    capsys: pytest.CaptureFixture[str],
    stage: str,
    changed: dict[str, str],
    said: str,
) -> None:
    assert said in refusal(capsys, *tiny(here, stage, **changed))


def test_model_of_another_size(
    here: Workplace, twins: tuple[entities.Run, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    words = tiny(here, "layer_svm", model=twins[0].info.run_id, image_size="20")
    line = refusal(capsys, *words)
    assert "the network takes 16 px, but image_size is 20: add --image-size 16" in line


def test_file_that_is_no_model(
    here: Workplace, twins: object, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("broken.keras").write_text("not a zip file")
    line = refusal(capsys, *tiny(here, "patch_bow", model="broken.keras"))
    assert "a .keras file saved by Keras 3 is required, but broken.keras is not one" in line


@pytest.mark.parametrize(
    ("shape", "outputs", "said"),
    [
        ((None, None, 3), 1, "RGB images of one fixed square size"),
        ((8, 9, 3), 1, "RGB images of one fixed square size"),
        ((8, 8, 1), 1, "RGB images of one fixed square size"),
        ((10,), 1, "RGB images of one fixed square size"),
        ((8, 8, 3), 2, "one probability for each class"),
        ((8, 8, 3), 1, "a layer named logits"),
    ],
)
def test_network_of_another_kind(
    here: Workplace,
    twins: object,
    capsys: pytest.CaptureFixture[str],
    shape: tuple[int | None, ...],
    outputs: int,
    said: str,
) -> None:
    keras = pytest.importorskip("keras")
    images = keras.Input(shape)
    flat = keras.layers.GlobalAveragePooling2D()(images) if len(shape) == 3 else images
    heads = [keras.layers.Dense(3)(flat) for _ in range(outputs)]
    keras.Model(images, heads).save("foreign.keras")
    words = tiny(here, "layer_svm", model="foreign.keras", image_size="8")
    assert said in refusal(capsys, *words)


def test_model_for_other_classes(
    here: Workplace,
    twins: tuple[entities.Run, ...],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    shutil.copytree(here.data, tmp_path / "photos")
    for split in ("train", "test"):
        shutil.rmtree(tmp_path / "photos" / split / "checks")
    model = twins[0].info.run_id
    line = refusal(capsys, *tiny(here, "layer_svm", model=model, data=str(tmp_path / "photos")))
    assert "the data set's 2 classes is required, but this one tells 3 apart" in line


class TestData:
    @staticmethod
    def truncate(root: Path) -> None:
        path = root / "train" / "bars" / "bars1.jpg"
        path.write_bytes(path.read_bytes()[:300])

    @staticmethod
    def empty(root: Path) -> None:
        for path in (root / "train" / "checks").iterdir():
            path.unlink()

    @staticmethod
    def starve(root: Path) -> None:
        kept = root / "train" / "bars" / "bars0.png"
        for path in (root / "train").rglob("*.*"):
            if path != kept:
                path.unlink()

    @pytest.mark.parametrize("stage", ["layer_svm", "patch_bow"])
    def test_one_training_image_of_a_class_is_too_few_for_cross_validation(
        self,
        here: Workplace,
        twins: object,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
        stage: str,
    ) -> None:
        shutil.copytree(here.data, tmp_path / "photos")
        for path in (tmp_path / "photos" / "train" / "columns").iterdir():
            if path.stem != "columns0":
                path.unlink()
        line = refusal(capsys, *tiny(here, stage, data=str(tmp_path / "photos")))
        assert "at least 2 training images of every class. Received: 1 of class columns" in line

    @pytest.mark.parametrize(
        ("spoil", "said"),
        [
            (truncate, "train/bars/bars1.jpg cannot be used"),
            (empty, "train/checks has no usable image"),
            (starve, "has 1 for 3 classes"),
        ],
    )
    def test_bad_data(
        self,
        here: Workplace,
        twins: object,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
        spoil: Folder,
        said: str,
    ) -> None:
        shutil.copytree(here.data, tmp_path / "photos")
        spoil(tmp_path / "photos")
        line = refusal(capsys, *tiny(here, "train_mlp", data=str(tmp_path / "photos")))
        assert said in line


class TestActivations:
    def picture(self, here: Workplace) -> str:
        return str(here.data / "test" / "bars" / "bars0.png")

    def test_missing_image(
        self, here: Workplace, twins: object, capsys: pytest.CaptureFixture[str]
    ) -> None:
        line = refusal(capsys, "activations", "missing.jpg", "--layer", "hidden_1")
        assert "an image file is required. Received: missing.jpg" in line

    def test_unknown_layer(
        self, here: Workplace, twins: tuple[entities.Run, ...], capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["--model", twins[0].info.run_id, "--layer", "hidden_9"]
        line = refusal(capsys, "activations", self.picture(here), *words)
        assert "hidden_1, " in line

    def test_experiment_without_a_model_takes_the_newest_of_the_store(
        self, here: Workplace, twins: object, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["--experiment", "nothing yet", "--layer", "list"]
        assert cli.main(["activations", self.picture(here), *words]) == 0
        assert "hidden_1" in capsys.readouterr().out

    def test_store_without_a_model(
        self,
        here: Workplace,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/empty.db")
        words = ["--experiment", "nothing yet", "--layer", "list"]
        line = refusal(capsys, "activations", self.picture(here), *words)
        assert "no finished run of experiment 'nothing yet' has one" in line

    def test_unwritable_output(
        self, here: Workplace, twins: tuple[entities.Run, ...], capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("file").touch()
        words = ["--model", twins[0].info.run_id, "--layer", "hidden_1", "--output", "file/below"]
        line = refusal(capsys, "activations", self.picture(here), *words)
        assert "a writable folder is required, but file/below is not" in line


def test_unwritable_store(
    here: Workplace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path("file").absolute()
    file.touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}/below/mlflow.db")
    line = refusal(capsys, *tiny(here, "train_mlp"))
    assert f"a writable folder is required, but {file}/below is not" in line


def test_refused_run_is_marked_failed(
    here: Workplace, twins: object, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, *tiny(here, "patch_bow", layer="hidden_9", experiment="failed"))
    (run,) = here.runs("failed")
    assert run.info.status == "FAILED"
    assert run.data.tags["status"] == "failed"
    assert line == f"error: {run.data.tags['error']}"


def test_the_real_command_refuses_alike(workplace: Workplace, twins: object) -> None:
    file = workplace.root / "file"
    file.touch()
    cramped = Workplace(workplace.root, workplace.data, file / "cache")
    layer = workplace.start_training("patch_bow", "refusals", "--layer", "hidden_9")
    cache = cramped.start_training("train_mlp", "refusals")
    for process, said in ((layer, "layer must be one of: "), (cache, f"{file}/cache")):
        out, err = finished(process, code=2)
        assert out == ""
        assert err.splitlines()[-1].startswith("error: ")
        assert err.count("error: ") == 1
        assert said in err.splitlines()[-1]
