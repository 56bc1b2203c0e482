"""``scenetrack bundle``: what a run did, as one file that says the same of the same images."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from mlflow import entities
from shipped import bundled, check_against_the_run
from workplace import CLASSES, Workplace

from scenetrack import cli, tracking
from scenetrack.errors import ModelError
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.system.arrays import read_arrays
from scenetrack.workflow.bundling import bundle_of
from scenetrack.workflow.load_method import find_method, open_pipeline


def test_every_method_of_a_run_says_what_it_said_when_it_was_tested(
    here: Workplace, project_run: entities.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = here.children(project_run)
    assert len(methods) == 3
    for name, method in methods.items():
        run_id = method.info.run_id
        model = bundled(run_id)
        out = capsys.readouterr().out
        assert f"{name} of run {run_id}, 3 classes" in out
        assert "verified on 15 test images of photos" in out
        share = f"{method.data.metrics['test/accuracy']:.2%}"
        assert f"test accuracy {share}, and {share} in the run" in out
        assert "15 of 15 labels are those that the run logged" in out
        assert (model.metadata["method"], model.metadata["source_run"]) == (name, run_id)
        check_against_the_run(model, run_id, here.data)


def test_a_stage_gives_the_method_that_validation_chose(
    here: Workplace, project_run: entities.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    best = here.children(project_run)[project_run.data.tags["best_method"]]
    model = bundled(project_run.info.run_id)
    assert model.metadata["source_run"] == best.info.run_id
    address = capsys.readouterr().out.split("serve -m ")[1].split()[0]
    logged = tracking.registered_onnx(address)
    assert logged is not None
    assert logged.read_bytes() == Path("scene.onnx").read_bytes()
    assert here.client.get_run(best.info.run_id).info.status == "FINISHED"
    assert bundle_of(project_run.info.run_id) == logged
    assert tracking.find_onnx(project_run.info.run_id, "bundle") is None


def test_a_network_alone(
    here: Workplace, twins: tuple[entities.Run, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = twins[0].info.run_id
    model = bundled(run_id)
    assert json.loads(model.metadata["classes"]) == list(CLASSES)
    check_against_the_run(model, run_id, here.data)


def test_a_keras_file_has_numbers_for_classes_until_data_name_them(
    here: Workplace,
    twins: tuple[entities.Run, ...],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = str(tracking.resolve_model(twins[0].info.run_id, ""))
    assert json.loads(bundled(path).metadata["classes"]) == ["0", "1", "2"]
    assert "names no classes" in caplog.text
    out = capsys.readouterr().out
    assert "verified on 32 random images" in out
    assert "not logged: it is of no run" in out
    named = bundled(path, "--data", str(here.data))
    assert json.loads(named.metadata["classes"]) == list(CLASSES)
    assert "verified on 15 test images of photos" in capsys.readouterr().out


@pytest.mark.parametrize("after", [(), (5,)])
def test_a_layer_of_another_network_may_be_named_logits(
    here: Workplace, after: tuple[int, ...]
) -> None:
    first = keras.layers.Dense(4, activation="softmax", name="logits")
    last = [keras.layers.Dense(units, activation="softmax") for units in after]
    pixels = [keras.Input((6, 6, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    network = keras.Sequential([*pixels, first, *last])
    network.save("other.keras")
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 3)).astype(np.uint8)
    shares = network.predict(images, verbose=0)
    np.testing.assert_allclose(
        bundled("other.keras").predict(images)["probabilities"], shares, rtol=1e-4
    )


def test_predict_finds_a_bundle_or_makes_it_once(
    here: Workplace, twins: tuple[entities.Run, ...], caplog: pytest.LogCaptureFixture
) -> None:
    run_id = twins[1].info.run_id
    first = bundle_of(run_id)
    assert first.parent == here.cache / "bundles"
    check_against_the_run(OnnxModel(first), run_id, here.data)
    written = first.stat().st_mtime_ns
    with caplog.at_level("INFO", "scenetrack"):
        assert bundle_of(run_id) == first
    assert f"reusing {first}" in caplog.messages
    assert first.stat().st_mtime_ns == written
    file = tracking.resolve_model(run_id, "")
    for name in (str(file), f"runs:/{run_id}/model"):
        other = bundle_of(name)
        assert other != first
        assert json.loads(OnnxModel(other).metadata["classes"]) == ["0", "1", "2"]


@pytest.mark.parametrize("last", ["softmax", "linear"])
def test_a_foreign_network_gives_its_own_probabilities(
    here: Workplace, tmp_path: Path, last: str
) -> None:
    network = _foreign(last)
    network.save(tmp_path / "foreign.keras")
    model = bundled(str(tmp_path / "foreign.keras"))
    images = np.random.default_rng(5).integers(0, 256, (6, 10, 10, 3)).astype(np.uint8)
    expected = network.predict(images, verbose=0)
    if last == "linear":
        expected = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
    found = model.run(images=images)
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)
    assert found["label"].tolist() == expected.argmax(axis=1).tolist()


def _foreign(last: str):  # type: ignore[no-untyped-def]
    import keras

    keras.utils.set_random_seed(1)
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((10, 10, 3), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(4, activation=last),
        ]
    )


class TestRefusals:
    def refusal(self, capsys: pytest.CaptureFixture[str], code: int, *words: str) -> str:
        assert cli.main(["bundle", *words]) == code
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ")
        assert not list(Path().glob("*.onnx"))
        return error

    def test_in_one_line(
        self,
        here: Workplace,
        project_run: entities.Run,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
    ) -> None:
        run_id = project_run.info.run_id
        assert "a run id or .keras file is required" in self.refusal(capsys, 2)
        assert "there is no run 'x'" in self.refusal(capsys, 2, "x")
        assert "must end in .onnx" in self.refusal(capsys, 2, run_id, "-o", "scene.keras")
        wrong = ["--method", "bag of words chi2 svm"]
        assert "must be one of: end to end" in self.refusal(capsys, 2, run_id, *wrong)
        demo = self.refusal(capsys, 2, run_id, "--data", "demo")
        assert "a data set of the classes bars, checks, columns is required" in demo
        patches = str(tracking.resolve_model(run_id, ""))
        assert "takes patches: name the run of patch_bow" in self.refusal(capsys, 2, patches)
        _foreign("relu").save(tmp_path / "relu.keras")
        relu = self.refusal(capsys, 2, str(tmp_path / "relu.keras"))
        assert "ends in a softmax, or without activation, is required" in relu
        gpu = self.refusal(capsys, 1, run_id, "--device", "gpu", "--require-gpu")
        assert "GPU" in gpu

    def test_other_data_than_the_runs_own_are_told(
        self, here: Workplace, project_run: entities.Run, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fewer = Path("fewer")
        for part in ("train", "test"):
            for name in CLASSES:
                source = here.data / part / name
                (fewer / part / name).mkdir(parents=True)
                for path in sorted(source.iterdir())[:2]:
                    (fewer / part / name / path.name).write_bytes(path.read_bytes())
        bundled(project_run.info.run_id, "--data", "fewer")
        reported = capsys.readouterr()
        assert "the data set fewer is not the one of run" in reported.err
        assert "verified on 6 test images of fewer" in reported.out
        assert "in the run" not in reported.out

    def svm_of(self, here: Workplace, run: entities.Run) -> tuple[str, Path]:
        """The run of an SVM, and the file with its arrays."""
        name = next(name for name in here.children(run) if "linear svm" in name)
        found = find_method(run.info.run_id, name)
        assert found.run is not None
        return found.run.id, tracking.run_file(found.run.id, "classifier.npz")

    def test_a_classifier_that_is_not_the_one_that_was_tested(
        self, here: Workplace, project_run: entities.Run, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run_id, path = self.svm_of(here, project_run)
        kept = path.read_bytes()
        arrays = dict(read_arrays(path))
        try:
            # As good as the true one, but that its machines speak for other classes.
            turned = {name: np.roll(arrays[name], 1, axis=0) for name in ("dual", "intercept")}
            np.savez(path, allow_pickle=False, **{**arrays, **turned})
            reported = self.refusal(capsys, 1, run_id)
            assert "its parts give others for 15 of 15 test images" in reported
            assert "classifier.npz are not those of the test" in reported
            narrower = {"support": arrays["support"][:, :-1]}
            np.savez(path, allow_pickle=False, **{**arrays, **narrower})
            reported = self.refusal(capsys, 2, run_id)
            assert f"parts that fit each other are required, but those of run {run_id}" in reported
            np.savez(path, allow_pickle=False, **{**arrays, "dual": arrays["dual"] * np.nan})
            reported = self.refusal(capsys, 2, run_id)
            assert f"run {run_id} (" in reported
            assert "classifier.npz cannot be used: a saved classifier needs" in reported
        finally:
            path.write_bytes(kept)
        bundled(run_id)
        assert "15 of 15 labels are those that the run logged" in capsys.readouterr().out

    def test_what_the_run_said_is_damaged_or_gone(
        self, here: Workplace, project_run: entities.Run, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run_id, _ = self.svm_of(here, project_run)
        table = tracking.run_file(run_id, "predictions.csv")
        kept = table.read_bytes()
        try:
            table.write_bytes(kept.replace(b"bars0.png", b"bars9.png"))
            assert "it names other files or classes" in self.refusal(capsys, 2, run_id)
            table.write_bytes(b"file,label\n")
            assert "predictions.csv is none" in self.refusal(capsys, 2, run_id)
            table.unlink()
            bundled(run_id)
            reported = capsys.readouterr()
            assert "the labels are not compared with those" in reported.err
            assert "the run logged" not in reported.out
        finally:
            table.write_bytes(kept)

    def test_parts_that_were_deleted(
        self, here: Workplace, project_run: entities.Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = next(name for name in here.children(project_run) if "svm" in name)
        found = find_method(project_run.info.run_id, name)
        assert found.run is not None
        path = tracking.run_file(found.run.id, "classifier.npz")
        kept = path.rename(path.with_suffix(".kept"))
        try:
            with pytest.raises(ModelError, match=r"must hold the file classifier\.npz"):
                open_pipeline(found, None, "cpu")
        finally:
            kept.rename(path)
