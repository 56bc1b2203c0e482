"""Several seeds in MLflow: children of children, and which of them a command takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
from mlflow import MlflowClient

from scenetrack import tracking
from scenetrack.config import PatchBowConfig, param
from scenetrack.errors import ModelError, Terminated
from scenetrack.records import Metric, Tag, Tracker
from scenetrack.workflow import runner
from scenetrack.workflow.load_method import find_method
from scenetrack.workflow.result import StageResult

METHODS = {"end to end": "network", "bag of words chi2 svm": "svm chi2"}


@dataclass(frozen=True)
class Repeated(PatchBowConfig):
    stage: ClassVar[str] = "patch_bow"
    repeats: int = param(1, "Seeds.", low=1)


def stage(config: Repeated, tracker: Tracker) -> StageResult:
    """Two methods whose accuracy is a tenth of the seed; seed 9 is killed between them."""
    accuracy = {"test/accuracy": config.seed / 10}
    for name, classifier in METHODS.items():
        with tracker.child(name, {"classifier": classifier}) as child:
            child.log(Metric("test/accuracy", config.seed / 10))
        if config.seed == 9:
            raise Terminated
    tracker.log(Tag("best_method", "end to end"))
    return StageResult(tracker.run_id, "done", {}, accuracy, dict.fromkeys(METHODS, accuracy))


@pytest.fixture(autouse=True)
def _stage(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "stage_function", lambda name: stage)


def test_seeds_are_children_with_methods_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    result = runner.run(Repeated(seed=3, repeats=2, experiment="repeats"))
    parent = tracking.resolve_run(result.run_id)
    assert (parent.status, parent.params["repeats"]) == ("FINISHED", "2")
    assert parent.metrics["test/accuracy"] == pytest.approx(0.35)
    assert parent.metrics["test/accuracy_std/end to end"] == pytest.approx(0.05 * 2**0.5)
    seeds = tracking.children(parent.id)
    assert [(run.name, run.params["seed"]) for run in seeds] == [("seed 3", "3"), ("seed 4", "4")]
    for run in seeds:
        assert (run.status, run.stage, run.params["repeats"]) == ("FINISHED", "patch_bow", "1")
        assert {one.name for one in tracking.children(run.id)} == set(METHODS)
    out = capsys.readouterr().out
    assert f"run {parent.id}; to ship one seed: scenetrack bundle {seeds[0].id} -o" in out
    assert "to ship it" not in out


def test_one_seed_is_a_run_as_ever(capsys: pytest.CaptureFixture[str]) -> None:
    result = runner.run(Repeated(seed=3, experiment="repeats"))
    assert {one.name for one in tracking.children(result.run_id)} == set(METHODS)
    assert f"run {result.run_id}; to ship it: scenetrack" in capsys.readouterr().out


def test_a_seeds_run_can_be_shipped_and_their_parent_names_them() -> None:
    result = runner.run(Repeated(seed=3, repeats=2, experiment="repeats"))
    first, second = tracking.children(result.run_id)
    found = find_method(second.id)
    assert (found.name, found.stage_run and found.stage_run.id) == ("end to end", second.id)
    method = {one.name: one for one in tracking.children(first.id)}["bag of words chi2 svm"]
    found = find_method(method.id)
    assert (found.name, found.stage_run and found.stage_run.id) == (method.name, first.id)
    names = rf"name the run of one, {first.id} \(seed 3\) or {second.id} \(seed 4\)"
    with pytest.raises(ModelError, match=names):
        find_method(result.run_id)


def test_a_killed_repeat_leaves_the_seeds_before_it() -> None:
    with pytest.raises(Terminated):
        runner.run(Repeated(seed=8, repeats=3, experiment="killed repeats"))
    client = tracking.connect()
    found = client.get_experiment_by_name("killed repeats").experiment_id
    every = {run.info.run_name: run for run in client.search_runs([found])}
    parent = next(run for name, run in every.items() if name.startswith("patch_bow"))
    assert (parent.info.status, parent.data.tags["status"]) == ("KILLED", "failed")
    assert (every["seed 8"].info.status, every["seed 9"].info.status) == ("FINISHED", "KILLED")
    assert "seed 10" not in every
    assert find_method(every["seed 8"].info.run_id).name == "end to end"
    with pytest.raises(ModelError, match=r"\(seed 8\)$"):
        find_method(parent.info.run_id)
    with pytest.raises(ModelError, match=r"seed 9.* is KILLED"):
        find_method(every["seed 9"].info.run_id)
