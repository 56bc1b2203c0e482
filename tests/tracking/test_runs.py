"""Runs and their children: what they carry, and how they end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from tracked import CONFIG, TAGS, run_of, start

from scenetrack import tracking
from scenetrack.config import TrainMlpConfig
from scenetrack.errors import InputError, ModelError, ScenetrackError, Terminated
from scenetrack.records import (
    Artifact,
    DatasetInput,
    Figure,
    Metric,
    Param,
    Table,
    Tag,
    Text,
)
from scenetrack.tracking.params import same_setting
from scenetrack.tracking.store import shown_uri

pytestmark = pytest.mark.usefixtures("client")


def test_a_run_carries_config_tags_and_a_finished_end(client: MlflowClient) -> None:
    with start() as tracker:
        during = run_of(client, tracker)
        tracker.log(Tag("dataset_digest", "abc"), Param("parameters", 12), Metric("loss", 2.0, 3))
    run = run_of(client, tracker)
    assert during.info.status == "RUNNING"
    assert during.data.tags["status"] == "started"
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "train_mlp 1024,512"
    assert run.data.params == {**CONFIG.as_params(), "parameters": "12"}
    assert run.data.metrics == {"loss": 2.0}
    expected = {**TAGS, "dataset_digest": "abc", "status": "completed", "pid": str(os.getpid())}
    assert expected.items() <= run.data.tags.items()
    assert client.get_experiment(run.info.experiment_id).name == "unit"


def test_one_call_is_one_batch(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = MlflowClient.log_batch

    def counted(self: MlflowClient, *args: object, **kwargs: object) -> object:
        calls.append(kwargs)
        return real(self, *args, **kwargs)

    with start() as tracker:
        monkeypatch.setattr(MlflowClient, "log_batch", counted)
        tracker.log(Tag("a", "1"), *(Metric("loss", 1 / (n + 1), n) for n in range(100)))
        monkeypatch.undo()
        tracker.log(*(Metric("long", n, n) for n in range(1001)))
    assert len(calls) == 1
    history = client.get_metric_history(tracker.run_id, "loss")
    assert [m.value for m in history] == [1 / (n + 1) for n in range(100)]
    assert len(client.get_metric_history(tracker.run_id, "long")) == 1001


def test_files_can_be_read_back(client: MlflowClient, tmp_path: Path) -> None:
    attached = tmp_path / "attached.txt"
    attached.write_text("attached")
    rows = [("coast", np.float32(0.5), 3), ("forêt", None, np.int64(4))]
    with start() as tracker:
        tracker.log(
            Figure("figures/a.png", b"png"),
            Text("summary.txt", "é"),
            Table("per_class.json", ("class", "f1", "images"), rows),
            Table("second.json", ("x",), [(1,)]),
            Table("deep/rows.csv", ("file", "score"), [("a,b.jpg", 0.5), ("=1+1/a.jpg", -0.5)]),
            Artifact(attached, "notes"),
        )
    root = Path(client.download_artifacts(tracker.run_id, ""))
    assert (root / "figures/a.png").read_bytes() == b"png"
    assert (root / "summary.txt").read_text(encoding="utf-8") == "é"
    lines = (root / "deep/rows.csv").read_text().splitlines()
    assert lines == ["file,score", '"a,b.jpg",0.5', "'=1+1/a.jpg,-0.5"]
    assert (root / "notes/attached.txt").read_text() == "attached"
    for name, columns in (("per_class.json", ["class", "f1", "images"]), ("second.json", ["x"])):
        frame = client.load_table(tracker.experiment_id, name, [tracker.run_id])
        assert list(frame.columns) == columns
    content = json.loads((root / "per_class.json").read_text(encoding="utf-8"))
    assert content["data"] == [["coast", 0.5, 3], ["forêt", None, 4]]


def test_train_and_test_data_are_both_inputs(client: MlflowClient) -> None:
    with start() as tracker:
        tracker.log(
            DatasetInput("demo", "abc", "/data", "train", 6, ("coast", "forest")),
            DatasetInput("demo", "abc", "/data", "test", 2, ("coast", "forest")),
        )
    inputs = run_of(client, tracker).inputs.dataset_inputs
    assert {(i.dataset.name, i.dataset.digest, i.tags[0].value) for i in inputs} == {
        ("demo/train", "abc", "train"),
        ("demo/test", "abc", "test"),
    }
    assert json.loads(inputs[0].dataset.profile)["classes"] == ["coast", "forest"]


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ScenetrackError("two\nlines"), "FAILED", "two lines"),
        (ValueError("odd"), "FAILED", "ValueError: odd"),
        (KeyboardInterrupt(), "KILLED", "interrupted (Ctrl-C)"),
        (Terminated(), "KILLED", "terminated (SIGTERM)"),
    ],
)
def test_parent_and_child_end_as_the_block_ends(
    client: MlflowClient, error: BaseException, status: str, message: str
) -> None:
    with pytest.raises(type(error)), start() as parent:  # noqa: PT012
        with parent.child("finished") as finished:
            pass
        with parent.child("broken") as broken:
            broken.log(Metric("kept", 1.0))
            raise error
    for tracker in (parent, broken):
        run = run_of(client, tracker)
        assert run.info.status == status
        assert (run.data.tags["status"], run.data.tags["error"]) == ("failed", message)
    assert run_of(client, broken).data.metrics == {"kept": 1.0}
    assert run_of(client, finished).info.status == "FINISHED"
    assert run_of(client, broken).info.end_time <= run_of(client, parent).info.end_time


def test_children_know_their_parent_and_the_data(client: MlflowClient) -> None:
    with start() as parent:
        parent.log(Tag("dataset_digest", "abc"), Tag("classifier", "network"))
        with parent.child("svm", {"classifier": "svm rbf", "task": "4"}) as child:
            pass
    tags = run_of(client, child).data.tags
    assert tags["mlflow.parentRunId"] == parent.run_id
    assert (tags["dataset"], tags["dataset_digest"], tags["stage"]) == ("demo", "abc", "train_mlp")
    assert (tags["classifier"], tags["task"]) == ("svm rbf", "4")


def test_a_notebooks_active_run_becomes_the_parent_and_stays_open(client: MlflowClient) -> None:
    experiment = tracking.experiment_named(client, "unit")
    with mlflow.start_run(experiment_id=experiment) as mine:
        with start() as tracker, tracker.child("kid") as kid:
            pass
        assert mlflow.active_run().info.run_id == mine.info.run_id
    elsewhere = tracking.experiment_named(client, "elsewhere")
    with mlflow.start_run(experiment_id=elsewhere), start() as alone:
        pass
    assert run_of(client, tracker).data.tags["mlflow.parentRunId"] == mine.info.run_id
    assert run_of(client, kid).data.tags["mlflow.parentRunId"] == tracker.run_id
    assert "mlflow.parentRunId" not in run_of(client, alone).data.tags


def test_under_mlflow_run_its_run_and_experiment_are_taken(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = tracking.experiment_named(client, "of mlflow")
    given = client.create_run(experiment, tags={"mlflow.project.entryPoint": "train_mlp"})
    for name, value in {
        "data": "'my images'", "preset": "''", "dropout": ".4", "batch_norm": "True",
        "hidden": "1024, 512", "epochs": "60", "seed": "0",
    }.items():  # fmt: skip
        client.log_param(given.info.run_id, name, value)
    monkeypatch.setenv("MLFLOW_RUN_ID", given.info.run_id)
    config = TrainMlpConfig(
        experiment="unit", data="my images", dropout=0.4, hidden=(1024, 512), epochs=50
    )
    with caplog.at_level("INFO", "scenetrack"), start(config) as tracker, tracker.child("kid") as k:
        pass
    run = run_of(client, tracker)
    assert caplog.messages == [
        "runs are logged to experiment 'of mlflow', which was chosen for mlflow run"
    ]
    assert run.data.tags["experiment"] == "of mlflow"
    assert run_of(client, k).data.tags["experiment"] == "of mlflow"
    assert tracker.run_id == given.info.run_id
    assert (run.info.experiment_id, run.info.status) == (experiment, "FINISHED")
    assert run.info.run_name == "train_mlp 1024,512"
    conflicts = {k: v for k, v in run.data.params.items() if k.startswith("preset/")}
    assert conflicts == {"preset/epochs": "50"}
    assert run.data.params["learning_rate"] == config.as_params()["learning_rate"]
    settings = tracking.resolve_run(tracker.run_id).params
    assert settings == {
        **config.as_params(), "dropout": ".4", "batch_norm": "True", "hidden": "1024, 512",
        "experiment": "of mlflow",
    }  # fmt: skip
    with start() as second:
        pass
    assert second.run_id != given.info.run_id


def test_an_experiment_that_mlflow_run_logged_is_put_right_by_a_tag(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = client.create_run("0")
    client.log_param(given.info.run_id, "experiment", "unit")
    monkeypatch.setenv("MLFLOW_RUN_ID", given.info.run_id)
    with start() as tracker:
        pass
    data = run_of(client, tracker).data
    assert (data.params["experiment"], data.tags["experiment"]) == ("unit", "Default")
    assert not [name for name in data.params if name.startswith("preset/")]


@pytest.mark.parametrize("deleted", [False, True])
def test_a_run_of_the_environment_that_is_not_there(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, deleted: bool
) -> None:
    run_id = "0123"
    if deleted:
        run_id = client.create_run("0").info.run_id
        client.delete_run(run_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with pytest.raises(InputError, match=f"MLFLOW_RUN_ID .* unset it. Received: {run_id}"), start():
        pass


def test_a_name_given_to_mlflow_run_stays(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = client.create_run("0", run_name="My best")
    monkeypatch.setenv("MLFLOW_RUN_ID", given.info.run_id)
    with start() as tracker:
        pass
    assert run_of(client, tracker).info.run_name == "My best"


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("5", "5.0", True),
        (".5", "0.5", True),
        ("none", "", True),
        ("1024, 512", "1024,512", True),
        ("TRUE", "true", True),
        ("Photos", "photos", False),
        ("1024,512", "1024", False),
        ("true", "1", False),
    ],
)
def test_same_setting(a: str, b: str, same: bool) -> None:
    assert same_setting(a, b) is same
    assert same_setting(b, a) is same


def test_a_run_that_is_not_there() -> None:
    with pytest.raises(ModelError, match="there is no run 'nope'"):
        tracking.resolve_run("nope")


def test_a_deleted_experiment_is_one_line(client: MlflowClient) -> None:
    client.delete_experiment(client.create_experiment("gone"))
    with (
        pytest.raises(InputError, match="experiment 'gone' is deleted"),
        start(TrainMlpConfig(experiment="gone")),
    ):
        pass


def test_messages_hold_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@localhost:5432/runs")
    assert shown_uri() == "postgresql://me:***@localhost:5432/runs"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000/a@b")
    assert shown_uri() == "http://127.0.0.1:5000/a@b"
