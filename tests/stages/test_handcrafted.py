"""``scenetrack handcrafted`` with each encoder: a run, its file, and what that says of images."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import pytest
from mlflow import entities
from shipped import bundled, check_against_the_run, logged_predictions
from workplace import PROJECT, Workplace, finished, flags

from scenetrack import cli, tracking
from scenetrack.config.encoder_registry import ENCODERS as ENCODERS_DECLARED

TINY_SIFT = {
    "image_size": "48",
    "step": "6",
    "bin_sizes": "3,5",
    "pca": "10",
    "codebook_size": "6",
    "kernels": "linear",
    "folds": "2",
}
# Settings, the method's name, and how long its vector is.
ENCODERS = {
    "words in shares": (
        {"assignment": "soft", "tf_idf": "true", "normalisation": "l2", "pyramid": "1x1,2x2"},
        "bag of words linear svm",
        6 * 5,
    ),
    "words with places": (
        {"kernels": "chi2", "position": "0.5", "square_root": "true", "smoothing": "0"},
        "bag of words chi2 svm",
        6,
    ),
    "vlad": ({"encoder": "vlad", "pyramid": "2x1"}, "vlad linear svm", 6 * 10 * 2),
    # A mean and a variance of each component, of the descriptor and of its place.
    "fisher vector": (
        {"encoder": "fisher_vector", "position": "1", "pyramid": "1x1,3x1"},
        "fisher vector linear svm",
        2 * 6 * (10 + 2) * 4,
    ),
    "opponent colours": (
        {"colour": "opponent", "pca": "0", "codebook_size": "24", "kernels": "intersection"},
        "bag of words intersection svm",
        24,
    ),
}


@pytest.fixture(autouse=True)
def _few_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scenetrack.workflow.encoding._FEWEST", 2000)
    few = dataclasses.replace(ENCODERS_DECLARED["fisher_vector"], sample_per_item=300)
    monkeypatch.setitem(ENCODERS_DECLARED, "fisher_vector", few)


def handcrafted(here: Workplace, experiment: str, **settings: str) -> entities.Run:
    """The run that the command makes."""
    words = ["--data", str(here.data), "--experiment", experiment]
    assert cli.main(["handcrafted", *words, *flags(TINY_SIFT | settings)]) == 0
    return here.runs(experiment)[-1]


def figures(run: entities.Run) -> dict[str, float]:
    """What was measured, but for times."""
    metrics: dict[str, float] = run.data.metrics
    return {name: value for name, value in metrics.items() if not name.startswith("time/")}


def predictions(here: Workplace, run: entities.Run) -> dict[str, bytes]:
    """The table of every method as its file is."""
    return {
        name: tracking.run_file(method.info.run_id, "predictions.csv").read_bytes()
        for name, method in here.children(run).items()
    }


def predicted(folder: Path) -> dict[str, str]:
    """The class of each image by CLASS/FILE, as ``scenetrack predict`` tells it."""
    assert cli.main(["predict", "scene.onnx", str(folder), "-o", "labels.csv"]) == 0
    with Path("labels.csv").open(newline="", encoding="utf-8") as file:
        return {
            "/".join(Path(row["path"]).parts[-2:]): row["label"] for row in csv.DictReader(file)
        }


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_ships_as_one_file(
    here: Workplace, twins: object, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    settings, method, width = ENCODERS[name]
    run = handcrafted(here, f"sift {name}", **settings)
    assert run.data.metrics["features"] == width
    (own,) = here.children(run).values()
    assert own.info.run_name == method
    assert own.data.metrics["test/accuracy"] > 0.7
    colour = " opponent" if "colour" in settings else ""
    tags = {"stage": "handcrafted", "task": "handcrafted", "descriptor": f"dense sift{colour}"}
    assert (tags | {"encoder": method.rsplit(" ", 2)[0]}).items() <= own.data.tags.items()
    assert own.data.params["cv_scope"] == "classifier only"
    model = bundled(run.info.run_id)
    out = capsys.readouterr().out
    assert "verified on 15 test images of photos, in batches of 1 and 16: every label equal" in out
    check_against_the_run(model, own.info.run_id, here.data)
    logged = {file: label for file, label, *_ in logged_predictions(own.info.run_id)}
    assert predicted(here.data / "test") == logged


def test_descriptors_are_found_again_whatever_is_made_of_them(
    here: Workplace,
    twins: object,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("SCENETRACK_CACHE", str(tmp_path / "cache"))
    first = handcrafted(here, "sift twice", encoder="vlad")
    reported = [
        f"describing {split}: descriptors of {n} images found in the cache"
        for split, n in (("train", 27), ("test", 15))
    ]
    assert not set(reported) & set(caplog.messages)
    assert first.data.metrics["time/descriptors_images_per_s"] > 0
    caplog.clear()
    other = handcrafted(here, "sift twice", encoder="vlad", codebook_size="5", pyramid="1x1,2x2")
    assert set(reported) <= set(caplog.messages)
    assert "time/descriptors_images_per_s" not in other.data.metrics
    monkeypatch.setenv("SCENETRACK_CACHE_SIZE", "0")
    caplog.clear()
    anew = handcrafted(here, "sift twice", encoder="vlad", codebook_size="5", pyramid="1x1,2x2")
    assert not set(reported) & set(caplog.messages)
    assert predictions(here, anew) == predictions(here, other)
    assert predictions(here, other) != predictions(here, first)
    assert figures(anew) == figures(other)


def test_the_same_seed_gives_the_same_predictions(
    here: Workplace, twins: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCENETRACK_CACHE_SIZE", "0")
    settings = {"encoder": "fisher_vector", "kernels": "auto", "position": "1"}
    one, same, other = (
        handcrafted(here, "sift seeds", **settings, seed=seed) for seed in ("3", "3", "4")
    )
    assert predictions(here, one) == predictions(here, same)
    assert predictions(here, one) != predictions(here, other)
    assert figures(one) == figures(same)


def test_an_encoder_of_each_fold(here: Workplace, twins: object) -> None:
    once = handcrafted(here, "sift folds", kernels="linear,chi2")
    anew = handcrafted(here, "sift folds", kernels="linear,chi2", refit_encoder="true")
    mine, other = here.children(anew), here.children(once)
    assert set(mine) == set(other) == {"bag of words linear svm", "bag of words chi2 svm"}
    for method in mine.values():
        assert method.data.params["cv_scope"] == "descriptor encoder inside the folds"
    for method in other.values():
        assert method.data.params["cv_scope"] == "classifier only"


def test_two_seeds_are_children_of_one_run(
    here: Workplace, twins: object, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = handcrafted(here, "sift repeats", encoder="vlad", repeats="2", seed="5")
    seeds = here.children(parent)
    assert set(seeds) == {"seed 5", "seed 6"}
    accuracies = []
    for seed in seeds.values():
        (method,) = here.children(seed).values()
        accuracies.append(method.data.metrics["test/accuracy"])
    mean = parent.data.metrics["test/accuracy/vlad linear svm"]
    assert mean == pytest.approx(sum(accuracies) / 2)
    assert "figures/seeds.png" in here.artifacts(parent)
    bundled(seeds["seed 6"].info.run_id)
    assert "vlad linear svm of run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "reported"),
    [
        ({"pca": "129"}, "PCA keeps at most the 128 values of dense sift. Received: pca=129"),
        ({"pca": "385", "colour": "opponent"}, "384 values of dense sift opponent."),
        ({"bin_sizes": "13"}, "a descriptor of 4 bins must fit into the image"),
        ({"bin_sizes": "none"}, "bin_sizes must give at least one size"),
        ({"encoder": "vlad", "kernels": "chi2"}, "chi2 kernel takes no negative values, but vlad"),
        ({"encoder": "vlad", "tf_idf": "true"}, "tf_idf is a setting of bag_of_words"),
        ({"pyramid": "1x1,9x9"}, "a level of the pyramid is ROWSxCOLUMNS of at most 64 regions"),
    ],
)
def test_refused_in_one_line(
    here: Workplace,
    twins: object,
    capsys: pytest.CaptureFixture[str],
    settings: dict[str, str],
    reported: str,
) -> None:
    words = ["--data", str(here.data), "--experiment", "sift refused"]
    assert cli.main(["handcrafted", *words, *flags(TINY_SIFT | settings)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    assert reported in line


def test_as_mlflow_runs_it(workplace: Workplace, twins: object) -> None:
    given = {"data": str(workplace.data), **TINY_SIFT, "encoder": "vlad"}
    words = [word for name, value in given.items() for word in ("-P", f"{name}={value}")]
    place = ["-e", "handcrafted", "--env-manager", "local", "--experiment-name", "sift project"]
    out, _ = finished(workplace.start("mlflow", "run", str(PROJECT), *place, *words))
    (run,) = workplace.runs("sift project")
    assert run.data.tags["mlflow.project.entryPoint"] == "handcrafted"
    assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "completed")
    assert set(workplace.children(run)) == {"vlad linear svm"}
    assert {"encoder.npz", "comparison.json"} <= workplace.artifacts(run)
    assert "vlad linear svm" in out
