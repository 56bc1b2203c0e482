"""``mlflow run . -e patch_bow`` on a tiny folder, read back with the MLflow client."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import mlflow
import numpy as np
import onnx
import pytest
from mlflow import entities
from workplace import CLASSES, PER_CLASS, TINY_PATCHES, Workplace

from scenetrack import tracking
from scenetrack.config import PatchBowConfig
from scenetrack.data.catalog import load_dataset
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.networks.training import load_model

METHODS = {"end to end", "bag of words linear svm", "bag of words rbf svm"}
TEST_METRICS = {"test/accuracy", "test/accuracy_low", "test/accuracy_high", "test/macro_f1"}


@pytest.fixture(scope="session")
def methods(workplace: Workplace, project_run: entities.Run) -> dict[str, entities.Run]:
    return workplace.children(project_run)


def _file(run: entities.Run, path: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/{path}"))


def test_one_parent_which_is_the_run_that_mlflow_made(
    workplace: Workplace, project_run: entities.Run, methods: dict[str, entities.Run]
) -> None:
    assert [run.info.run_id for run in workplace.runs("project")] == [project_run.info.run_id]
    assert project_run.data.tags["mlflow.project.entryPoint"] == "patch_bow"
    assert set(methods) == METHODS
    assert {run.info.status for run in (project_run, *methods.values())} == {"FINISHED"}


def test_params_are_the_settings_used(here: Workplace, project_run: entities.Run) -> None:
    given = {name: value for name, value in TINY_PATCHES.items() if "," not in value}
    typed = {name: type(getattr(PatchBowConfig(), name))(value) for name, value in given.items()}
    lists = {"hidden": (24, 12), "kernels": ("linear", "rbf")}
    used = PatchBowConfig(data=str(here.data), **typed, **lists)  # type: ignore[arg-type]
    logged = tracking.resolve_run(project_run.info.run_id).params
    assert {name: logged[name] for name in used.as_params()} == used.as_params()


def test_tags_say_what_the_run_is(
    here: Workplace, project_run: entities.Run, methods: dict[str, entities.Run]
) -> None:
    digest = load_dataset(str(here.data), seed=0).digest
    shared = {
        "task": "5",
        "stage": "patch_bow",
        "dataset": "photos",
        "dataset_digest": digest,
        "status": "completed",
    }
    of_network = {"descriptor": "patch mlp hidden_2", "encoder": "none", "classifier": "network"}
    of_words = {"descriptor": "patch mlp hidden_2", "encoder": "bag of words"}
    expected = {
        "end to end": of_network,
        "bag of words linear svm": {**of_words, "classifier": "svm linear"},
        "bag of words rbf svm": {**of_words, "classifier": "svm rbf"},
    }
    assert shared.items() <= project_run.data.tags.items()
    for name, run in methods.items():
        assert (shared | expected[name]).items() <= run.data.tags.items()


@pytest.mark.parametrize("name", sorted(METHODS))
def test_each_method_has_its_figures(
    workplace: Workplace, methods: dict[str, entities.Run], name: str
) -> None:
    metrics = methods[name].data.metrics
    assert {"train/accuracy", "val/accuracy"} | TEST_METRICS <= set(metrics)
    assert metrics["test/accuracy_low"] <= metrics["test/accuracy"] <= metrics["test/accuracy_high"]
    # Of images that the network knows: no estimate of what new ones would show.
    assert "cv/accuracy" not in metrics
    assert ("train/cv_accuracy" in metrics) == ("time/fit_s" in metrics) == ("svm" in name)
    files = {"figures/confusion_matrix.png", "per_class.json", "predictions.csv"}
    assert files <= workplace.artifacts(methods[name])


def test_logged_predictions_give_the_logged_accuracy(methods: dict[str, entities.Run]) -> None:
    for run in methods.values():
        with _file(run, "predictions.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(CLASSES) * PER_CLASS["test"]
        assert all(row["file"].startswith(f"{row['label']}/") for row in rows)
        right = np.mean([row["label"] == row["predicted"] for row in rows])
        assert run.data.metrics["test/accuracy"] == pytest.approx(right)


def test_the_stripes_are_learnt(methods: dict[str, entities.Run]) -> None:
    for run in methods.values():
        assert run.data.metrics["test/accuracy"] > 0.7


def test_parent_compares_the_methods(
    workplace: Workplace, project_run: entities.Run, methods: dict[str, entities.Run]
) -> None:
    metrics = project_run.data.metrics
    for name, run in methods.items():
        assert metrics[f"test/accuracy/{name}"] == run.data.metrics["test/accuracy"]
    chosen = methods[project_run.data.tags["best_method"]].data.metrics
    assert {k: metrics[k] for k in TEST_METRICS} == {k: chosen[k] for k in TEST_METRICS}
    assert metrics["val/accuracy"] == max(r.data.metrics["val/accuracy"] for r in methods.values())
    table = json.loads(_file(project_run, "comparison.json").read_text())
    assert {row[0] for row in table["data"]} == METHODS
    accuracies = [row[1] for row in table["data"]]
    assert accuracies == sorted(accuracies, reverse=True)


def test_parent_has_curves_times_and_pictures(
    workplace: Workplace, project_run: entities.Run
) -> None:
    for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
        curve = workplace.curve(project_run, f"patch/{name}")
        assert len(curve) == int(TINY_PATCHES["epochs"])
    times = {"time/fit_s", "time/export_s", "time/codebook_s", "time/descriptors_images_per_s"}
    assert times <= set(project_run.data.metrics)
    pictures = {"learning_curves", "topology", "samples", "comparison"}
    files = workplace.artifacts(project_run)
    assert {f"figures/{name}.png" for name in pictures} <= files
    assert {"model_summary.txt", "encoder.npz", "comparison.json"} <= files


def test_data_sets_are_inputs_of_the_run(project_run: entities.Run) -> None:
    counts = {
        one.tags[0].value: json.loads(one.dataset.profile)["images"]
        for one in project_run.inputs.dataset_inputs
    }
    assert counts == {split: len(CLASSES) * count for split, count in PER_CLASS.items()}
    digests = {one.dataset.digest for one in project_run.inputs.dataset_inputs}
    assert digests == {project_run.data.tags["dataset_digest"]}


def test_models_load_and_agree(here: Workplace, project_run: entities.Run) -> None:
    query = f"source_run_id = '{project_run.info.run_id}'"
    found = here.client.search_logged_models([project_run.info.experiment_id], query)
    models = {one.name: one for one in found}
    assert set(models) == {"model", "descriptors"}
    network = load_model(tracking.resolve_model(project_run.info.run_id, "project"))
    graph = Path(mlflow.artifacts.download_artifacts(models["descriptors"].artifact_location))
    (path,) = graph.rglob("*.onnx")
    metadata = {item.key: item.value for item in onnx.load(path).metadata_props}
    assert json.loads(metadata["classes"]) == list(CLASSES)
    assert (metadata["layer"], metadata["input_size"]) == ("hidden_2", "8")
    assert metadata["source_run"] == project_run.info.run_id
    patches = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    logits = OnnxModel(path).predict(patches)["logits"][:, 0, 0]  # a grid of one patch
    odds = np.exp(logits)
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    assert network.predict(patches, verbose=0) == pytest.approx(probabilities, abs=1e-5)
