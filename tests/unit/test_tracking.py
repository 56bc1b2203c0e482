from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from scenetrack import tracking
from scenetrack.config import TrainMlpConfig
from scenetrack.errors import InputError, ModelError, ScenetrackError, Terminated
from scenetrack.records import (
    Artifact,
    DatasetInput,
    Figure,
    Metric,
    Model,
    Param,
    Table,
    Tag,
    TensorSpec,
    Text,
)
from scenetrack.tracking import models
from scenetrack.tracking.processes import process_tags
from scenetrack.tracking.settings import same_setting
from scenetrack.tracking.store import shown_uri

CONFIG = TrainMlpConfig(experiment="unit")
TAGS = {"task": "1", "stage": "train_mlp", "dataset": "demo"}
IMAGES = [TensorSpec("images", "uint8", (-1, 32, 32, 3))]
SCORES = [TensorSpec("probabilities", "float32", (-1, 8))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(autouse=True)
def client(folder: Path, _isolated: None, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """One store for all tests here: making its tables takes seconds."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    return tracking.connect()


@pytest.fixture
def keras_file(tmp_path: Path) -> Path:
    path = tmp_path / "network.keras"
    path.write_bytes(b"stands for a network")
    return path


def run_of(client: MlflowClient, tracker: tracking.MlflowTracker) -> Run:
    return client.get_run(tracker.run_id)


def start(config: TrainMlpConfig = CONFIG):  # type: ignore[no-untyped-def]
    return tracking.open_run(config, name="train_mlp 1024,512", tags=TAGS)


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
            Table("deep/rows.csv", ("file", "score"), [("a,b.jpg", 0.5)]),
            Artifact(attached, "notes"),
        )
    root = Path(client.download_artifacts(tracker.run_id, ""))
    assert (root / "figures/a.png").read_bytes() == b"png"
    assert (root / "summary.txt").read_text(encoding="utf-8") == "é"
    assert (root / "deep/rows.csv").read_text().splitlines() == ["file,score", '"a,b.jpg",0.5']
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
    assert caplog.messages == ["runs go to experiment 'of mlflow', as mlflow run was told"]
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


def keras_model(path: Path, name: str = "model") -> Model:
    return Model(name, path, IMAGES, SCORES, {"classes": "coast,forest"})


def test_a_keras_model_is_logged_as_it_is_and_found_again(
    client: MlflowClient, keras_file: Path
) -> None:
    config = TrainMlpConfig(experiment="models")
    with start(config) as tracker, tracker.child("end to end") as child:
        child.log(keras_model(keras_file))
        with pytest.raises(ModelError, match="no finished run of experiment 'models' has one"):
            tracking.resolve_model("", "models")
    alias = client.search_logged_models([child.experiment_id])[0]
    client.create_registered_model("scene")
    version = client.create_model_version("scene", f"models:/{alias.model_id}", child.run_id)
    client.set_registered_model_alias("scene", "champion", version.version)
    names = (
        "", child.run_id, tracker.run_id, f"runs:/{child.run_id}/model",
        "models:/scene@champion", f"models:/scene/{version.version}", f"models:/{alias.model_id}",
    )  # fmt: skip
    for name in names:
        path = tracking.resolve_model(name, "models")
        assert path.suffix == ".keras"
        assert path.read_bytes() == keras_file.read_bytes()
    signature = mlflow.models.get_model_info(f"models:/{alias.model_id}").signature
    assert signature.inputs.inputs[0].shape == (-1, 32, 32, 3)
    files = [item.name for item in path.parents[1].rglob("*") if item.is_file()]
    assert not [name for name in files if "pickle" in name or name.endswith(".pkl")]
    assert "mlflow==" in (path.parents[1] / "requirements.txt").read_text()


def test_without_a_name_the_newest_model_of_all_experiments_is_the_last_resort(
    client: MlflowClient, keras_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for experiment, content in (("first", b"1"), ("second", b"2"), ("third", b"3")):
        keras_file.write_bytes(content)
        with start(TrainMlpConfig(experiment=experiment)) as tracker:
            tracker.log(keras_model(keras_file))
    with start(TrainMlpConfig(experiment="trains nothing")):
        pass
    with caplog.at_level("INFO", "scenetrack"):
        assert tracking.resolve_model("", "first").read_bytes() == b"1"
        assert caplog.messages == []
        for experiment in ("trains nothing", "never made"):
            caplog.clear()
            assert tracking.resolve_model("", experiment).read_bytes() == b"3"
            assert caplog.messages == [
                f"experiment {experiment!r} has no Keras model: taking the newest, of run "
                f"{tracker.run_id} (train_mlp 1024,512) of experiment 'third'"
            ]
    client.delete_experiment(tracker.experiment_id)
    assert tracking.resolve_model("", "third").read_bytes() == b"2"


def test_a_deleted_run_gives_no_model(client: MlflowClient, keras_file: Path) -> None:
    config = TrainMlpConfig(experiment="deleted")
    with start(config) as older:
        older.log(keras_model(keras_file))
    keras_file.write_bytes(b"of the deleted run")
    with start(config) as newer:
        newer.log(keras_model(keras_file))
    client.delete_run(newer.run_id)
    restore = f"is deleted: .* mlflow runs restore --run-id {newer.run_id}"
    with pytest.raises(ModelError, match=restore):
        tracking.resolve_model(newer.run_id, "deleted")
    with pytest.raises(ModelError, match=restore):
        tracking.resolve_run(newer.run_id)
    assert tracking.resolve_model("", "deleted").read_bytes() == b"stands for a network"


def test_more_models_than_one_page_of_the_store(
    client: MlflowClient, keras_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = MlflowClient.search_logged_models

    def one_a_page(self: MlflowClient, *args: object, **kwargs: object) -> object:
        return real(self, *args, max_results=1, **kwargs)

    config = TrainMlpConfig(experiment="pages")
    with start(config) as tracker:
        tracker.log(keras_model(keras_file, "wanted"))
        for _ in range(2):
            client.create_logged_model(tracker.experiment_id, "empty", tracker.run_id)
    monkeypatch.setattr(MlflowClient, "search_logged_models", one_a_page)
    assert tracking.resolve_model("", "pages").read_bytes() == keras_file.read_bytes()


def test_files_that_are_gone_are_named(client: MlflowClient, keras_file: Path) -> None:
    with start(TrainMlpConfig(experiment="gone files")) as tracker:
        tracker.log(keras_model(keras_file))
    location = tracking.resolve_model(tracker.run_id, "").parents[1]
    shutil.rmtree(location)
    with pytest.raises(ModelError, match=f"its files at {location} are missing"):
        tracking.resolve_model(tracker.run_id, "")


def test_an_onnx_model_is_logged_whole_twice(client: MlflowClient, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    big = np.arange(2048, dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "b"], ["y"])],
        "add",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2048])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2048])],
        [onnx.numpy_helper.from_array(big, "b")],
    )
    path = tmp_path / "add.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), path)
    spec = (-1, 2048)
    record = Model("add", path, [TensorSpec("x", "float32", spec)], [
        TensorSpec("y", "float32", spec)
    ])  # fmt: skip
    with start() as tracker:
        tracker.log(record)
        tracker.log(record)
    found = client.search_logged_models(
        [tracker.experiment_id], f"source_run_id = '{tracker.run_id}'"
    )
    assert len(found) == 2
    for model in found:
        location = Path(mlflow.artifacts.download_artifacts(model.artifact_location))
        logged = onnx.load(location / "model.onnx")
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(logged.graph.initializer[0]), big)
        assert [item.name for item in location.glob("*.onnx*")] == ["model.onnx"]
    with pytest.raises(ModelError, match=r"a Keras model is required, but run \w+ has none"):
        tracking.resolve_model(tracker.run_id, "unit")


def test_a_model_on_a_server_is_fetched_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def fetch(uri: str, dst_path: str, tracking_uri: str) -> None:
        fetched.append((uri, tracking_uri))
        Path(dst_path, "model.keras").write_bytes(b"far away")

    monkeypatch.setenv("SCENETRACK_CACHE", str(tmp_path))
    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", fetch)
    uri = "mlflow-artifacts:/1/models/m-1/artifacts/data/model.keras"
    paths = [models._local_file("m-1", uri) for _ in range(2)]
    assert paths == [tmp_path / "models" / "m-1" / "model.keras"] * 2
    assert paths[0].read_bytes() == b"far away"
    assert fetched == [(uri, tracking.tracking_uri())]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("0123456789abcdef", "there is no run '0123456789abcdef'"),
        ("runs:/0123/model", "there is no run '0123'"),
        ("models:/nothing@champion", "nothing"),
        ("models:/nothing", "nothing"),
        ("gone.keras", r"gone\.keras does not exist"),
        ("~nobody-of-this-name/x.keras", r"file ~nobody-of-this-name/x\.keras does not exist"),
        ("~nobody-of-this-name/x", "there is no run '~nobody-of-this-name'"),
        ("x" * 5000 + ".keras", r"file x{60}\.\.\.x{14}\.keras does not exist"),
        ("x" * 5000, r"there is no run 'x{60}\.\.\.x{20}'"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(model: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        tracking.resolve_model(model, "unit")
    assert "\n" not in str(caught.value)


def test_a_file_of_another_kind_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "weights.h5"
    path.write_bytes(b"")
    with pytest.raises(ModelError, match=r"a \.keras file or a run id is required"):
        tracking.resolve_model(str(path), "unit")


def test_a_run_that_is_not_there() -> None:
    with pytest.raises(ModelError, match="there is no run 'nope'"):
        tracking.resolve_run("nope")


def test_a_killed_process_leaves_runs_that_the_next_start_closes(
    client: MlflowClient, folder: Path
) -> None:
    config = TrainMlpConfig(experiment="killed")
    child = subprocess.Popen(
        [sys.executable, "-c", _program("killed", "print('open', flush=True); time.sleep(600)")],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    with child:
        assert child.stdout.readline().strip() == "open"
        experiment = tracking.experiment_named(client, "killed")
        assert tracking.reconcile_stale_runs("killed") == []
        child.send_signal(signal.SIGKILL)
    stale = [run.info.run_id for run in client.search_runs([experiment])]
    assert len(stale) == 2  # the parent and its child
    moved = client.create_run(experiment, tags={**process_tags(), "host": "another"})
    with start(config):
        pass
    for run_id in stale:
        run = client.get_run(run_id)
        assert run.info.status == "FAILED"
        assert (run.data.tags["status"], run.data.tags["error"]) == ("failed", "process died")
    assert client.get_run(moved.info.run_id).info.status == "RUNNING"


def test_a_process_number_used_again_is_another_process(client: MlflowClient) -> None:
    experiment = tracking.experiment_named(client, "again")
    own = process_tags()
    earlier = {**own, "process": own["process"].rpartition(" ")[0] + " 1"}
    stale = client.create_run(experiment, tags=earlier).info.run_id
    alive = client.create_run(experiment, tags=own).info.run_id
    foreign = {**own, "process": "pid:[1] 1"}
    container = client.create_run(experiment, tags=foreign).info.run_id
    assert tracking.reconcile_stale_runs("again") == [stale]
    assert {client.get_run(i).info.status for i in (alive, container)} == {"RUNNING"}
    assert tracking.reconcile_stale_runs("never made") == []


def test_end_resumed_closes_a_killed_run_and_leaves_an_ended_one(client: MlflowClient) -> None:
    killed = client.create_run("0").info.run_id
    with start() as ended:
        pass
    for run_id in (killed, ended.run_id):
        tracking.end_resumed(run_id, "new")
        assert client.get_run(run_id).data.tags["resumed_by"] == "new"
    assert client.get_run(killed).info.status == "FAILED"
    assert client.get_run(ended.run_id).info.status == "FINISHED"


def _program(experiment: str, body: str) -> str:
    """A process that opens a run and a child in ``experiment`` and does ``body`` inside."""
    text = f"""
        import time
        from scenetrack import tracking
        from scenetrack.config import TrainMlpConfig
        from scenetrack.records import Metric
        config = TrainMlpConfig(experiment={experiment!r})
        with tracking.open_run(config, name="p", tags={{"stage": "train_mlp"}}) as parent:
            with parent.child("kid") as kid:
                {body}
    """
    return textwrap.dedent(text)


def test_four_processes_may_meet_a_fresh_store(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    program = _program("together", "kid.log(*(Metric('m', n, n) for n in range(50)))")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(4)
    ]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, "\n".join(outputs)
    assert outputs == [""] * 4
    store = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = store.search_runs([store.get_experiment_by_name("together").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 8
    assert sum(run.data.metrics.get("m") == 49 for run in runs) == 4
    assert runs[0].info.artifact_uri.startswith(str(tmp_path / "mlruns"))


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
