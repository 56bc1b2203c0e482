"""``scenetrack compare``: runs side by side from what they kept, and what cannot be compared."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from scenetrack import tracking
from scenetrack.config import CompareConfig, PatchBowConfig, StageConfig, TrainMlpConfig
from scenetrack.errors import InputError, ModelError
from scenetrack.evaluation import evaluate
from scenetrack.records import Metric, Table, Tag, Tracker
from scenetrack.stages.compare import compare

pytestmark = pytest.mark.usefixtures("client")
NAMES = ("sea", "land")
LABELS = np.repeat([0, 1], 6)
FILES = tuple(f"{NAMES[label]}/{k}.jpg" for k, label in enumerate(LABELS))
# How many of the twelve images, the last ones, a method has wrong.
WRONG: Mapping[str, int] = {"end to end": 6, "svm": 1}


def predictions(wrong: int) -> np.ndarray:
    return np.where(np.arange(12) < 12 - wrong, LABELS, 1 - LABELS)


def log_test(tracker: Tracker, wrong: int, files: tuple[str, ...] = FILES) -> None:
    reported = predictions(wrong)
    shares = np.where(np.eye(2)[reported] > 0, 0.75, 0.25)
    tracker.log(*evaluate(LABELS, reported, NAMES, shares).records(files))


def opened(config: StageConfig, name: str):  # type: ignore[no-untyped-def]
    return tracking.open_run(config, name=name, tags={"stage": config.stage, "task": "0"})


def stage_run(
    wrong: Mapping[str, int] = WRONG, digest: str = "d" * 16, name: str = "patch_bow mit8"
) -> str:
    """A finished stage with a child run for each method."""
    with opened(PatchBowConfig(experiment="compare"), name) as parent:
        parent.log(Tag("dataset", "photos"), Tag("dataset_digest", digest))
        for method, count in wrong.items():
            with parent.child(method) as child:
                log_test(child, count)
    return parent.run_id


def mlp_run(wrong: int = 3, files: tuple[str, ...] = FILES) -> str:
    """A finished run that is a method itself."""
    with opened(TrainMlpConfig(experiment="compare"), "train_mlp mit8") as run:
        run.log(Tag("dataset", "photos"), Tag("dataset_digest", "d" * 16))
        log_test(run, wrong, files)
    return run.run_id


def cells(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_methods_of_one_run_best_first(capsys: pytest.CaptureFixture[str]) -> None:
    compare(CompareConfig(runs=(stage_run(),)))
    rows = cells(capsys.readouterr().out)
    # 11 and 6 of 12 right; confidence 0.75: |11/12 - 3/4| and |1/2 - 3/4|.
    assert rows[2][:3] == ["1", "svm", "91.7%"]
    assert rows[2][-1] == "0.167"
    assert rows[3][:5] == ["2", "end", "to", "end", "50.0%"]
    assert rows[3][-1] == "0.250"
    # Five images are right in one only: 2 / 2**5, one pair.
    assert ["2", "0.0625"] in rows


def test_files_say_what_the_terminal_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "comparison"
    compare(CompareConfig(runs=(stage_run(), mlp_run()), output=str(folder)))
    assert f"written to {folder}: comparison.csv, pairs.csv" in capsys.readouterr().out
    with (folder / "comparison.csv").open(newline="", encoding="utf-8") as file:
        methods = list(csv.DictReader(file))
    assert [row["method"] for row in methods] == [
        "patch_bow mit8: svm",
        "train_mlp mit8",
        "patch_bow mit8: end to end",
    ]
    assert [float(row["accuracy"]) for row in methods] == [11 / 12, 9 / 12, 6 / 12]
    with (folder / "pairs.csv").open(newline="", encoding="utf-8") as file:
        pairs = list(csv.DictReader(file))
    # 2, 5 and 3 images are right in one only: 2 / 2**2, 2 / 2**5 and 2 / 2**3, times 1, 3 and 2.
    assert [float(row["p"]) for row in pairs] == [1 / 2, 1 / 16, 1 / 4]
    assert [float(row["p_holm"]) for row in pairs] == [1 / 2, 3 / 16, 1 / 2]
    with Image.open(folder / "comparison.png") as picture:
        assert min(picture.size) > 200


def test_runs_of_one_name_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = stage_run(), stage_run({"end to end": 2})
    compare(CompareConfig(runs=(first, second)))
    out = capsys.readouterr().out
    assert f"patch_bow mit8: end to end ({first[:8]})" in out
    assert f"patch_bow mit8: end to end ({second[:8]})" in out
    assert "patch_bow mit8: svm  " in out


def test_a_run_named_twice_or_below_another_counts_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = stage_run()
    method = tracking.children(run)[0].id
    compare(CompareConfig(runs=(run, method, f"{run}, {method}")))
    assert "for 1 in all" in capsys.readouterr().out


def test_methods_below_seeds_are_found(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, client: MlflowClient
) -> None:
    with opened(PatchBowConfig(experiment="compare"), "patch_bow") as parent:
        for seed in range(3):
            with parent.child(f"seed {seed}") as child:
                child.log(Tag("dataset", "photos"), Tag("dataset_digest", "d" * 16))
                with child.child("svm") as method:
                    log_test(method, seed)
    client.set_terminated(child.run_id, "KILLED")
    compare(CompareConfig(runs=(parent.run_id,)))
    rows = cells(capsys.readouterr().out)
    assert rows[2][:5] == ["1", "seed", "0:", "svm", "100.0%"]
    assert rows[3][:4] == ["2", "seed", "1:", "svm"]
    assert "left out: run" in caplog.text
    assert "(seed 2) is KILLED" in caplog.text


def test_other_images_are_refused() -> None:
    run, other = stage_run(), stage_run(digest="e" * 16)
    with pytest.raises(ModelError, match=rf"was tested on photos {'e' * 16}, and .* {'d' * 16}"):
        compare(CompareConfig(runs=(run, other)))
    renamed = mlp_run(files=(*FILES[:11], "land/other.jpg"))
    with pytest.raises(ModelError, match="name different files or classes"):
        compare(CompareConfig(runs=(run, renamed)))


def test_runs_that_tested_nothing_or_are_not_there(client: MlflowClient) -> None:
    with pytest.raises(InputError, match="at least one run id is required"):
        compare(CompareConfig())
    with pytest.raises(ModelError, match="there is no run 'nothing'"):
        compare(CompareConfig(runs=("nothing",)))
    with opened(TrainMlpConfig(experiment="compare"), "untested") as untested:
        untested.log(Metric("train/accuracy", 1))
    with pytest.raises(ModelError, match=r"\(untested\) of train_mlp tested none"):
        compare(CompareConfig(runs=(untested.run_id,)))
    killed = stage_run()
    client.set_terminated(killed, "KILLED")
    with pytest.raises(ModelError, match=r"run .* \(patch_bow mit8\) is KILLED: wait"):
        compare(CompareConfig(runs=(killed,)))


def test_seeds_that_were_killed_on_the_way(client: MlflowClient) -> None:
    """What is finished of them is named, also below a seed that is not."""
    finished = []
    with opened(PatchBowConfig(experiment="compare"), "patch_bow") as parent:
        for seed in range(3):
            with parent.child(f"seed {seed}") as child:
                child.log(Tag("dataset", "photos"), Tag("dataset_digest", "d" * 16))
                with child.child("svm") as method:
                    log_test(method, seed)
            finished.append(f"{child.run_id} (seed {seed})")
    finished[2] = f"{method.run_id} (svm)"
    client.update_run(child.run_id, "RUNNING")
    client.update_run(parent.run_id, "RUNNING")
    reported = f"is RUNNING: wait for it, or name what is finished of it: {', '.join(finished)}"
    with pytest.raises(ModelError, match=re.escape(reported)):
        compare(CompareConfig(runs=(parent.run_id,)))
    compare(CompareConfig(runs=tuple(one.split()[0] for one in finished)))


def test_a_finished_run_of_which_no_part_is(client: MlflowClient) -> None:
    run = stage_run({"svm": 1})
    client.set_terminated(tracking.children(run)[0].id, "KILLED")
    with pytest.raises(ModelError, match=rf"below run {run} \(patch_bow mit8\) none is finished"):
        compare(CompareConfig(runs=(run,)))


def test_predictions_of_an_earlier_version(capsys: pytest.CaptureFixture[str]) -> None:
    with opened(TrainMlpConfig(experiment="compare"), "old") as old:
        rows = [
            (file, NAMES[label], NAMES[reported], 1.5)
            for file, label, reported in zip(FILES, LABELS, predictions(2), strict=True)
        ]
        columns = ("file", "label", "predicted", "score")
        old.log(
            Tag("dataset", "photos"),
            Tag("dataset_digest", "d" * 16),
            Metric("test/accuracy", 10 / 12),
            Table("predictions.csv", columns, rows),
        )
    compare(CompareConfig(runs=(old.run_id,)))
    assert cells(capsys.readouterr().out)[2][:3] == ["1", "old", "83.3%"]


def test_a_damaged_table_is_refused_in_one_line() -> None:
    run = mlp_run()
    tracking.run_file(run, "predictions.csv").write_text("file,label\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"predictions\.csv is none"):
        compare(CompareConfig(runs=(run,)))
