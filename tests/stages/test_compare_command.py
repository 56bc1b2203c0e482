"""``scenetrack compare`` on runs that the other tests made, and real trainings with two seeds."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from mlflow import entities
from workplace import TINY_MLP, Workplace

from scenetrack import cli, tracking
from scenetrack.config import TrainMlpConfig, param
from scenetrack.config.parsing import build_config
from scenetrack.workflow import runner


def test_runs_of_two_stages_on_the_same_images(
    here: Workplace,
    project_run: entities.Run,
    twins: tuple[entities.Run, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [project_run.info.run_id, twins[0].info.run_id, "-o", "comparison"]
    assert cli.main(["compare", *words]) == 0, capsys.readouterr().err
    assert "adjusted by Holm for 6 in all" in capsys.readouterr().out
    with Path("comparison", "comparison.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    methods = here.children(project_run)
    stage = project_run.info.run_name
    runs = {f"{stage}: {name}": run for name, run in methods.items()}
    runs[twins[0].info.run_name] = twins[0]
    assert set(rows) == set(runs)
    for name, run in runs.items():
        for column, metric in (("accuracy", "test/accuracy"), ("macro_f1", "test/macro_f1")):
            assert float(rows[name][column]) == pytest.approx(run.data.metrics[metric])
        assert float(rows[name]["ece"]) == pytest.approx(run.data.metrics["test/ece"], abs=1e-6)
    assert {path.name for path in Path("comparison").iterdir()} == {
        "comparison.csv",
        "pairs.csv",
        "comparison.png",
    }


def test_a_run_that_is_not_there_is_one_line(
    here: Workplace, twins: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", "nothing"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "there is no run 'nothing': copy the id" in line
    assert cli.main(["compare"]) == 2
    assert "at least one run id is required" in capsys.readouterr().err


@dataclass(frozen=True)
class Repeated(TrainMlpConfig):
    stage: ClassVar[str] = "train_mlp"
    repeats: int = param(1, "Seeds.", low=1)


def test_a_seed_of_several_is_what_it_is_alone(
    here: Workplace, twins: tuple[entities.Run, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"data": str(here.data), "experiment": "seeds", "repeats": "2", **TINY_MLP}
    config = build_config(Repeated, given, from_mlflow=False)
    result = runner.run(config)  # type: ignore[arg-type]
    first, second = tracking.children(result.run_id)
    assert {"figures/seeds.png", "repeats.json"} <= here.artifacts(here.runs("seeds")[0])
    alone, again = (
        tracking.run_file(run_id, "predictions.csv").read_text(encoding="utf-8")
        for run_id in (twins[0].info.run_id, first.id)
    )
    assert again == alone
    other = tracking.run_file(second.id, "predictions.csv").read_text(encoding="utf-8")
    assert other != alone
    mean = (first.metrics["test/accuracy"] + second.metrics["test/accuracy"]) / 2
    assert result.metrics["test/accuracy/MLP"] == pytest.approx(mean)
    assert result.metrics["val/accuracy"] == pytest.approx(
        (first.metrics["val/accuracy"] + second.metrics["val/accuracy"]) / 2
    )
    assert cli.main(["bundle", second.id]) == 0, capsys.readouterr().err
    assert cli.main(["bundle", result.run_id]) == 2
    assert f"{second.id} (seed 1)" in capsys.readouterr().err
