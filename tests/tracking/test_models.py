"""Model files: logged as they are, found again, refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from tracked import keras_model, start

from scenetrack import tracking
from scenetrack.config import TrainMlpConfig
from scenetrack.errors import ModelError
from scenetrack.records import Model, TensorSpec
from scenetrack.tracking import lookup

pytestmark = pytest.mark.usefixtures("client")


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
        keras_file.as_uri(), "models:/scene/latest", "models:/scene/None",
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
                f"experiment {experiment!r} has no Keras model: using the newest, of run "
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
    first, second = (lookup.local_file(uri) for _ in range(2))
    assert first == second == tmp_path / "models" / first.parent.name / "model.keras"
    assert first.read_bytes() == b"far away"
    assert lookup.local_file(f"mlflow-artifacts:/../../../{uri}").parents[1] == tmp_path / "models"
    assert fetched[0] == (uri, tracking.tracking_uri())
    assert len(fetched) == 2  # the other address is another file


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("0123456789abcdef", "there is no run '0123456789abcdef'"),
        ("runs:/0123/model", "there is no run '0123'"),
        ("models:/nothing@champion", "nothing"),
        ("models:/nothing", "nothing"),
        ("models:/nothing/latest", "has no version 'latest': name a number, an alias"),
        ("models:/it's/latest", "without quotes"),
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
