"""Which method a run id means, and what is refused before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from fake_bundle import fake_bundle
from mlflow import MlflowClient, entities

from scenetrack import tracking
from scenetrack.config import MainConfig, PatchBowConfig, StageConfig, TrainMlpConfig
from scenetrack.errors import ConfigError, ModelError
from scenetrack.records import Artifact, DatasetInput, Metric, Model, Tag, TensorSpec
from scenetrack.workflow.bundling import bundle_of
from scenetrack.workflow.load_method import (
    FinishedMethod,
    assemble,
    find_method,
    open_pipeline,
    read_network,
)

pytestmark = pytest.mark.usefixtures("client")
METHODS = ("end to end", "bag of words chi2 svm")


def opened(config: StageConfig, name: str):  # type: ignore[no-untyped-def]
    return tracking.open_run(config, name=name, tags={"stage": config.stage, "task": "0"})


def patch_bow(best: str = METHODS[1]) -> tuple[str, dict[str, str]]:
    """Ids of a finished run with two methods, and of these."""
    ids = {}
    with opened(PatchBowConfig(experiment="methods"), "patch_bow") as parent:
        for name in METHODS:
            tags = {"classifier": "network" if name == "end to end" else "svm chi2"}
            with parent.child(name, tags) as child:
                ids[name] = child.run_id
        parent.log(Tag("best_method", best))
    return parent.run_id, ids


@pytest.fixture(scope="module")
def run(store_folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(store_folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store_folder / 'mlflow.db'}")
        yield patch_bow()


def test_a_stage_means_the_method_that_validation_chose(run: tuple[str, dict[str, str]]) -> None:
    parent, ids = run
    found = find_method(parent)
    assert (found.name, found.run and found.run.id) == (METHODS[1], ids[METHODS[1]])
    assert found.stage_run
    assert found.stage_run.id == parent
    assert found.params["aggregation"] == "mean"


def test_a_method_by_name_or_by_its_own_id(run: tuple[str, dict[str, str]]) -> None:
    parent, ids = run
    for name in METHODS:
        by_name, by_id = find_method(parent, name), find_method(ids[name])
        for found in (by_name, by_id, find_method(ids[name], name)):
            assert (found.name, found.run and found.run.id) == (name, ids[name])
            assert found.stage_run
            assert found.stage_run.id == parent


def test_children_are_listed_oldest_first(run: tuple[str, dict[str, str]]) -> None:
    found = tracking.children(run[0])
    assert [(one.name, one.id, one.parent) for one in found] == [
        (name, run[1][name], run[0]) for name in METHODS
    ]
    assert tracking.children(run[1][METHODS[0]]) == []


def test_more_children_than_one_page(
    run: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = MlflowClient.search_runs

    def one_a_page(self: MlflowClient, *args: object, **kwargs: object) -> object:
        return real(self, *args, max_results=1, **kwargs)

    monkeypatch.setattr(MlflowClient, "search_runs", one_a_page)
    assert [one.name for one in tracking.children(run[0])] == list(METHODS)


def test_main_means_the_stage_that_validates_best(caplog: pytest.LogCaptureFixture) -> None:
    with opened(MainConfig(experiment="methods"), "main") as story:
        for stage, accuracy in (("train_mlp", 0.9), ("patch_bow", 0.8)):
            with story.child(stage, {"stage": stage}) as child:
                child.log(Metric("val/accuracy", accuracy), Metric("test/accuracy", 1 - accuracy))
            if stage == "train_mlp":
                best = child.run_id
    with caplog.at_level("INFO", "scenetrack"):
        found = find_method(story.run_id)
    assert (found.name, found.run and found.run.id) == ("train_mlp", best)
    assert "taking its stage train_mlp" in caplog.messages[-1]
    with pytest.raises(ModelError, match=f"is of main: name its run {best} of train_mlp or "):
        find_method(story.run_id, METHODS[0])


def test_a_method_that_is_not_there(run: tuple[str, dict[str, str]]) -> None:
    parent, ids = run
    with pytest.raises(ModelError, match=r"one of: end to end, bag of .*Received: 'best' for run"):
        find_method(parent, "best")
    with pytest.raises(ConfigError, match=f"is the method 'end to end': .* its parent {parent}"):
        find_method(ids["end to end"], METHODS[1])
    with pytest.raises(ModelError, match="there is no run 'nothing'"):
        find_method("nothing")
    with pytest.raises(ConfigError, match=r"a\.keras is one method: leave --method x out"):
        find_method("a.keras", "x")


def test_half_a_run_is_refused(client: MlflowClient) -> None:
    parent, ids = patch_bow()
    client.set_terminated(parent, "KILLED")
    for model in (parent, ids["end to end"]):
        with pytest.raises(ModelError, match=rf"run {parent} \(patch_bow\) is KILLED"):
            find_method(model)


def test_a_stage_without_a_classifier_is_refused() -> None:
    with tracking.open_run(
        TrainMlpConfig(experiment="methods"), name="looked at", tags={"stage": "activations"}
    ) as tracker:
        pass
    with pytest.raises(ModelError, match=r"\(looked at\) is of activations: name another one"):
        find_method(tracker.run_id)


def test_classes_come_with_the_data_set() -> None:
    with opened(TrainMlpConfig(experiment="methods"), "train_mlp") as tracker:
        tracker.log(DatasetInput("demo", "abc", "/data", "train", 6, ("coast", "forêt")))
    found = find_method(tracker.run_id)
    assert found.run
    assert (found.run.classes, found.name) == (("coast", "forêt"), "train_mlp")
    with pytest.raises(ConfigError, match="is one method: leave --method out"):
        find_method(tracker.run_id, "x")


@pytest.mark.parametrize(
    "profile",
    ["[" * 100_000, "no json", "3", '{"classes": "ab"}', '{"classes": ["a", "\\ud800"]}', "{}"],
)
def test_a_data_set_whose_classes_cannot_be_read(profile: str, client: MlflowClient) -> None:
    with opened(TrainMlpConfig(experiment="methods"), "train_mlp") as tracker:
        dataset = entities.Dataset("photos", "abc", "local", "{}", profile=profile)
        client.log_inputs(tracker.run_id, [entities.DatasetInput(dataset)])
    assert tracking.resolve_run(tracker.run_id).classes == ()


class TestParts:
    """Parts that are missing or damaged are named in one line."""

    def log_network(self, tracker: tracking.MlflowTracker, path: Path, **metadata: str) -> None:
        model = onnx.load(fake_bundle(path))
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, path)
        images = [TensorSpec("images", "uint8", (-1, -1, -1, 3))]
        tracker.log(Model("descriptors", path, images, images))

    def stage(self, tmp_path: Path, name: str, **metadata: str) -> FinishedMethod:
        with opened(PatchBowConfig(experiment="parts"), "patch_bow") as parent:
            if metadata:
                self.log_network(parent, tmp_path / "network.onnx", **metadata)
            tags = {"classifier": "svm linear", "encoder": "bag of words"}
            with parent.child(name, tags) as child:
                path = tmp_path / "classifier.npz"
                np.savez_compressed(path, allow_pickle=False, zeros=np.zeros(10))
                child.log(Artifact(path))
        return find_method(parent.run_id, name)

    def test_no_network(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="must hold the ONNX model 'descriptors'"):
            open_pipeline(self.stage(tmp_path, "svm"), None, "cpu")

    def test_a_network_of_single_patches(self, tmp_path: Path) -> None:
        found = self.stage(tmp_path, "svm", classes="[]", scenetrack="0.1.0")
        with pytest.raises(ModelError, match=r"is of scenetrack 0\.1\.0, which kept single pat"):
            open_pipeline(found, None, "cpu")

    @pytest.mark.parametrize(
        ("classes", "size"),
        [
            ('["a", "b"]', "x"),
            ('["a", "b"]', "99999999"),
            ("[" * 100_000, "24"),
            ('["a", "a"]', "24"),
            ('["a", "\\ud800"]', "24"),
            ('"ab"', "24"),
            ("", "24"),
        ],
    )
    def test_metadata_that_cannot_be(self, classes: str, size: str, tmp_path: Path) -> None:
        path = fake_bundle(tmp_path / "network.onnx", classes=classes, image_size=size)
        with pytest.raises(ModelError, match="name its classes and image_size") as caught:
            assemble(read_network(path), None, None, aggregation="")
        assert "\n" not in str(caught.value)

    def test_no_encoder(self, tmp_path: Path) -> None:
        found = self.stage(tmp_path, "svm", classes="[]", image_size="24")
        with pytest.raises(ModelError, match=r"must hold the file encoder\.npz, but .*: put it"):
            open_pipeline(found, None, "cpu")

    def test_a_compressed_classifier(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        found = self.stage(tmp_path, "svm", classes="[]", image_size="24")
        assert found.run
        monkeypatch.setitem(found.run.tags, "encoder", "none")  # type: ignore[arg-type]
        with pytest.raises(ModelError, match=r"classifier\.npz cannot be read \(it is compressed"):
            open_pipeline(found, None, "cpu")

    def test_arrays_that_are_missing(self, tmp_path: Path) -> None:
        found = self.stage(tmp_path, "svm", classes="[]", image_size="24")
        assert found.run
        assert found.stage_run
        path = tmp_path / "encoder.npz"
        np.savez(path, allow_pickle=False, words=np.zeros((2, 2)))
        tracking.connect().log_artifact(found.stage_run.id, str(path))
        reported = rf"run {found.run.id} .*encoder\.npz cannot be used: a saved encoder needs"
        with pytest.raises(ModelError, match=reported):
            open_pipeline(found, None, "cpu")


class TestBundleOf:
    def test_the_one_that_was_logged(self, tmp_path: Path) -> None:
        parent, ids = patch_bow()
        path = fake_bundle(tmp_path / "scene.onnx")
        address = tracking.log_bundle(ids[METHODS[1]], path, {}, "")

        names = (parent, ids[METHODS[1]], f"runs:/{ids[METHODS[1]]}/bundle", address)
        for name in names:
            assert bundle_of(name).read_bytes() == path.read_bytes()
        with pytest.raises(ModelError, match=f"run {parent} has no bundle: make it with scenetr"):
            bundle_of(f"runs:/{parent}/bundle")
