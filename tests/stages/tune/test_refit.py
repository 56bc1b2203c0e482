"""The refit of a study's best trial where another machine does the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import entities
from workplace import Workplace

from scenetrack import cli
from scenetrack.system.process_identity import process_tags

WORDS = ["--target", "handcrafted", "--trials", "1", "--storage", "sqlite:///studies.db"]
SMALL = ["--image-size", "48", "--codebook-size", "8", "--pca", "8", "--folds", "2"]
SPACE = ["--space", "encoder=vlad; bin_sizes=4; step=8; pyramid=1x1", "--colour", "grey"]

Tune = Callable[..., tuple[str, entities.Run]]


@pytest.fixture
def tune(
    here: Workplace,
    twins: object,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> Tune:
    experiment = request.node.name

    def run(*words: str) -> tuple[str, entities.Run]:
        where = ["--data", str(here.data), "--experiment", experiment]
        assert cli.main(["tune", *where, *WORDS, *SMALL, *SPACE, *words]) == 0
        (study,) = here.runs(experiment)
        return capsys.readouterr().out, study

    return run


def refit_elsewhere(
    place: Workplace, study: entities.Run, process: Mapping[str, str] | None = None
) -> str:
    """The id of a refit that another process, else one of another machine, has begun."""
    process = process or {"host": "elsewhere", "process": "x"}
    tags = {"mlflow.parentRunId": study.info.run_id, **process}
    name = "best: trial 0"
    made = place.client.create_run(study.info.experiment_id, tags=tags, run_name=name)
    return str(made.info.run_id)


def refits(place: Workplace, study: entities.Run) -> list[entities.Run]:
    query = f"tags.`mlflow.parentRunId` = '{study.info.run_id}'"
    found = place.client.search_runs([study.info.experiment_id], query)
    return [one for one in found if one.info.run_name == "best: trial 0"]


def test_in_work_elsewhere(here: Workplace, tune: Tune) -> None:
    out, study = tune("--refit", "false")
    assert "on all of train" not in out
    other = refit_elsewhere(here, study)
    out, study = tune()
    assert f"trial 0 is being refitted on elsewhere by run {other}: should that have died" in out
    assert study.info.status == "RUNNING"
    assert [one.info.run_id for one in refits(here, study)] == [other]
    here.client.delete_run(other)
    out, study = tune()
    assert "trial 0 on all of train" in out
    assert study.info.status == "FINISHED"


def test_begun_at_the_same_moment(
    here: Workplace, tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, study = tune("--refit", "false")

    def meanwhile(seconds: float) -> None:
        """Another machine begins, with an id before ours; those after ours let us go on."""
        (mine,) = refits(here, study)
        while (other := refit_elsewhere(here, study)) > mine.info.run_id:
            here.client.delete_run(other)

    with monkeypatch.context() as patched:
        patched.setattr(time, "sleep", meanwhile)
        out, study = tune()
    assert "is being refitted on elsewhere" in out
    states = {one.info.status: one for one in refits(here, study)}
    assert set(states) == {"FAILED", "RUNNING"}
    assert "is being refitted on elsewhere" in states["FAILED"].data.tags["error"]
    here.client.set_terminated(states["RUNNING"].info.run_id, "FAILED")
    with monkeypatch.context() as patched:
        patched.setattr(time, "sleep", lambda seconds: None)
        out, study = tune()
    assert "trial 0 on all of train" in out


def test_the_process_that_refitted_died(
    here: Workplace, tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While this one waited for it, which is when it holds the lock at last."""
    _, study = tune("--refit", "false")
    dead = process_tags()
    dead["process"] = dead["process"].rpartition(" ")[0] + " 1"

    @contextmanager
    def waited(path: Path) -> Iterator[None]:
        refit_elsewhere(here, study, dead)
        yield

    monkeypatch.setattr("scenetrack.stages.tune.conclusion.lock", waited)
    out, study = tune()
    assert "trial 0 on all of train" in out
    states = sorted(one.info.status for one in refits(here, study))
    assert states == ["FAILED", "FINISHED"]
