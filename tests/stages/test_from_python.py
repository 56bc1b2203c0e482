"""Stages called from Python: with and without a run of the caller's, and without MLflow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import mlflow
import pytest
from mlflow import entities
from workplace import TINY_PATCHES, Workplace

from scenetrack.config import PatchBowConfig, TrainMlpConfig
from scenetrack.records import MemoryTracker, Tag
from scenetrack.stages.patch_bow import patch_bow
from scenetrack.workflow import runner


def patch_config(here: Workplace, **changed: object) -> PatchBowConfig:
    """The settings of ``TINY_PATCHES``, with less of everything."""
    settings: dict[str, object] = {
        "data": str(here.data),
        "experiment": "python",
        "image_size": 32,
        "patch_size": 8,
        "stride": 8,
        "patches_per_image": 12,
        "whitening": 24,
        "hidden": (12,),
        "epochs": 6,
        "batch_size": 64,
        "validation": 0.2,
        "pca": 6,
        "codebook_size": int(TINY_PATCHES["codebook_size"]),
        "kernels": ("linear",),
        "folds": 2,
    }
    return PatchBowConfig(**(settings | changed))  # type: ignore[arg-type]


def mlp_config(here: Workplace, experiment: str) -> TrainMlpConfig:
    return TrainMlpConfig(
        data=str(here.data), experiment=experiment, image_size=8, hidden=(4,), epochs=2
    )


@pytest.fixture
def active_run(here: Workplace, twins: object) -> Iterator[entities.Run]:
    """A run that a notebook has open."""
    mlflow.set_tracking_uri(here.uri)
    mlflow.set_experiment("notebook")
    try:
        with mlflow.start_run(run_name="mine") as run:
            yield run
    finally:
        mlflow.set_tracking_uri(None)


def test_a_stage_makes_its_own_run(
    here: Workplace, twins: object, capsys: pytest.CaptureFixture[str]
) -> None:
    result = runner.run(patch_config(here))
    (run,) = here.runs("python")
    assert result.run_id == run.info.run_id
    assert run.info.status == "FINISHED"
    assert set(result.evaluations) == {"end to end", "bag of words linear svm"}
    for name, child in here.children(run).items():
        accuracy = result.evaluations[name].accuracy
        assert child.data.metrics["test/accuracy"] == pytest.approx(accuracy)
    assert result.summary in capsys.readouterr().out
    assert mlflow.active_run() is None


def test_a_stage_becomes_a_child_of_the_callers_run(
    here: Workplace, active_run: entities.Run
) -> None:
    result = runner.run(mlp_config(here, "notebook"))
    child = here.client.get_run(result.run_id)
    assert child.data.tags["mlflow.parentRunId"] == active_run.info.run_id
    assert child.info.status == "FINISHED"
    still_mine = mlflow.active_run()
    assert still_mine is not None
    assert still_mine.info.run_id == active_run.info.run_id
    assert here.client.get_run(active_run.info.run_id).info.status == "RUNNING"


def test_a_run_of_another_experiment_is_no_parent(
    here: Workplace, active_run: entities.Run
) -> None:
    result = runner.run(mlp_config(here, "elsewhere"))
    assert "mlflow.parentRunId" not in here.client.get_run(result.run_id).data.tags


def _figures(tracker: MemoryTracker) -> dict[str, float]:
    """All numbers of a run and its children but the times."""
    figures = {k: v for k, v in tracker.metrics().items() if not k.startswith("time/")}
    for name, child in tracker.children.items():
        figures |= {f"{name}: {key}": value for key, value in _figures(child).items()}
    return figures


def test_the_seed_decides_every_figure(here: Workplace) -> None:
    def figures(seed: int) -> dict[str, float]:
        tracker = MemoryTracker()
        patch_bow(patch_config(here, seed=seed), tracker)
        return _figures(tracker)

    first = figures(1)
    assert len(first) > 20
    assert figures(1) == first
    other = figures(2)
    assert set(other) == set(first)
    assert other["patch/train/loss"] != first["patch/train/loss"]


def test_skipped_images_are_listed(here: Workplace) -> None:
    bad = here.data / "train" / "bars" / "broken.png"
    bad.write_bytes(b"no picture")
    try:
        tracker = MemoryTracker()
        settings = patch_config(here, skip_bad=True, epochs=1)
        patch_bow(settings, tracker)
    finally:
        bad.unlink()
    (table,) = (r for r in tracker.records if getattr(r, "name", "") == "skipped_files.csv")
    assert [row[0] for row in table.rows] == [str(bad)]  # type: ignore[union-attr]
    assert Tag("demo_data", "false") in tracker.records


def test_without_mlflow(workplace: Workplace) -> None:
    code = (
        "import sys\n"
        "from scenetrack.config import TrainMlpConfig\n"
        "from scenetrack.records import MemoryTracker\n"
        "from scenetrack.stages.train_mlp import train_mlp\n"
        "tracker = MemoryTracker()\n"
        "train_mlp(TrainMlpConfig(data=sys.argv[1], epochs=2, hidden=(4,)), tracker)\n"
        "assert 'test/accuracy' in tracker.metrics()\n"
        "print('mlflow' in sys.modules)"
    )
    words = [sys.executable, "-c", code, str(workplace.data)]
    ran = subprocess.run(
        words, capture_output=True, text=True, env=workplace.environment, cwd=workplace.root
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "False"
