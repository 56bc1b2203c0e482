"""Networks and encoders that a later command finds: nothing is learnt again, no figure changes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from mlflow import entities
from shipped import logged_predictions
from workplace import TINY_MLP, TINY_PATCHES, Workplace, flags

from scenetrack import cli

FINAL = ("test/accuracy", "test/macro_f1", "val/accuracy", "temperature")
TRAINED = "reusing the network of run"


def run(here: Workplace, stage: str, experiment: str, **settings: str) -> entities.Run:
    """The run that the command makes."""
    tiny = {"train_mlp": TINY_MLP, "patch_bow": TINY_PATCHES | {"kernels": "linear"}}[stage]
    words = ["--data", str(here.data), "--experiment", experiment]
    assert cli.main([stage, *words, *flags(tiny | {"epochs": "6"} | settings)]) == 0
    return here.runs(experiment)[-1]


def figures(here: Workplace, done: entities.Run) -> dict[str, dict[str, float]]:
    """What was found out, of the run and of its methods; what took time is left out."""
    return {
        one.info.run_name: {k: v for k, v in one.data.metrics.items() if not k.startswith("time/")}
        for one in (done, *here.children(done).values())
    }


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, here: Workplace) -> None:
    monkeypatch.setenv("SCENETRACK_CACHE", str(tmp_path / "cache"))


def test_a_network_is_trained_once_and_says_the_same(
    here: Workplace,
    twins: object,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO, "scenetrack")
    first = run(here, "train_mlp", "trained once")
    assert TRAINED not in caplog.text
    with monkeypatch.context() as patched:
        patched.setattr("scenetrack.workflow.network_training.fit", None)
        again = run(here, "train_mlp", "trained once")
    assert f"{TRAINED} {first.info.run_id}" in caplog.text
    assert again.data.tags["network_of_run"] == first.info.run_id
    assert figures(here, again).popitem()[1] == figures(here, first).popitem()[1]
    for curve in ("train/loss", "val/accuracy"):
        assert here.curve(again, curve) == here.curve(first, curve)
    assert again.data.metrics["time/fit_s"] == first.data.metrics["time/fit_s"]
    assert here.artifacts(again) == here.artifacts(first)
    caplog.clear()
    monkeypatch.setenv("SCENETRACK_CACHE_SIZE", "0")
    anew = run(here, "train_mlp", "trained once")
    assert TRAINED not in caplog.text
    assert figures(here, anew).popitem()[1] == figures(here, first).popitem()[1]


def test_other_encoders_share_a_patch_network_its_descriptors_and_an_encoder(
    here: Workplace,
    twins: object,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.INFO, "scenetrack")
    first = run(here, "patch_bow", "patches once")
    monkeypatch.setattr("scenetrack.workflow.network_training.fit", None)
    settings = {"encoder": "vlad", "codebook_size": "4", "pyramid": "1x1,2x2"}
    other = run(here, "patch_bow", "patches once", **settings)
    assert f"{TRAINED} {first.info.run_id}" in caplog.text
    assert "describing train: descriptors of 27 images found in the cache" in caplog.messages
    assert "vlad of 4 found in the cache" not in caplog.messages
    monkeypatch.setattr("scenetrack.encoders.ImageEncoder.learn", None)
    kernels = run(here, "patch_bow", "patches once", **settings, kernels="linear,rbf")
    assert "vlad of 4 found in the cache" in caplog.messages
    mine, others = figures(here, kernels), figures(here, other)
    assert mine["vlad linear svm"] == others["vlad linear svm"]
    assert mine["end to end"] == others["end to end"] == figures(here, first)["end to end"]
    same = [here.children(one)["vlad linear svm"].info.run_id for one in (other, kernels)]
    assert list(logged_predictions(same[0])) == list(logged_predictions(same[1]))
    capsys.readouterr()
    assert cli.main(["cache"]) == 0
    kinds = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert kinds.count("networks") == 1
    assert kinds.count("encoders") == 2
    assert cli.main(["cache", "clear", "networks", "--yes"]) == 0
    caplog.clear()
    with pytest.raises(AssertionError, match="1 == 0"):  # there is no fit to train it anew
        run(here, "patch_bow", "patches once")
    assert TRAINED not in caplog.text
